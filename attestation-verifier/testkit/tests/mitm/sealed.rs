//! Sealed requests (Oblivious HTTP) by way of a host that lies about the key, about what it carries, or about both.

use std::time::Duration;

use attestation_verifier::verdict::Class;
use touchstone_client::{Error, Verified};
use touchstone_testkit::mitm::{Config, Kind, Lie, ManInTheMiddle, Record, Upstream};

use crate::common::{
    Caller, EITHER, MODEL, caller, caller_of, count, exit_of, holds_prompt, nothing_was_sent, own,
    shared_stack, tensor, traces,
};

fn lies(kind: Kind) -> impl Iterator<Item = Lie> {
    let all = Lie::ALL.iter().copied();
    all.filter(move |lie| lie.kind() == kind)
}

/// How many sealed requests the host was given.
fn sealed(record: &Record) -> usize {
    let seen = record.connections();
    let notes = seen.iter().flat_map(|seen| &seen.notes);
    notes
        .filter(|note| note.starts_with("POST /v1/ohttp "))
        .count()
}

/// Requests were handed over, and nothing of what is in them could be read on the wire, either way.
fn nothing_was_told(record: &Record, lie: Lie) {
    assert!(record.settle(Duration::from_secs(20)), "{lie}");
    assert!(record.complete());
    assert_eq!(record.leaked(), 0, "{lie}");
    let traces = traces();
    for seen in record.connections() {
        for side in [&seen.from_client, &seen.to_client] {
            assert_eq!(count(&traces, side), 0, "{lie}: {:?}", seen.notes);
        }
    }
}

/// How many callers a lie takes, how many of them are refused, and how many sealed requests that costs, at most.
fn shape(lie: Lie) -> (usize, usize, usize) {
    match lie {
        Lie::OhttpAnswerSwap => (2, 2, 2),
        // The first gets its own.
        Lie::OhttpAnswerReplay => (2, 1, 2),
        // Another keyset proves itself, and the question is asked once more.
        Lie::Ohttp422Endless => (1, 1, 2),
        _ => (1, 1, 1),
    }
}

/// The twin of everything below. It also shows that what is looked for is found where it was sent: inside the seal.
#[test]
fn the_honest_twin_is_answered_and_its_question_is_inside_the_seal() {
    let test = "the_honest_twin_is_answered_and_its_question_is_inside_the_seal";
    let Some(caller) = caller(test, &EITHER) else {
        return;
    };
    let middle = ManInTheMiddle::start(own(Lie::None)).unwrap();
    for more in [
        vec![],
        vec!["--json-encoding", "--require", "logged quoted"],
    ] {
        caller.is_answered_sealed(&middle, "digits", &more);
    }
    nothing_was_told(middle.record(), Lie::None);
    let connections = middle.record().connections();
    assert!(connections.iter().all(|seen| !seen.tls));
    let read: Vec<_> = connections
        .iter()
        .filter(|seen| !seen.read.is_empty())
        .collect();
    assert_eq!(read.len(), 2, "one connection for each question");
    assert!(holds_prompt(&read[0].read) && holds_prompt(&read[0].told));
    assert!(!holds_prompt(&read[0].from_client), "sealed on the wire");
    // Attested TLS is served by the same server as before.
    caller.is_answered(&middle, "digits", &[]);
}

#[test]
fn every_lie_about_the_key_is_refused_by_name_and_nothing_is_sealed() {
    let test = "every_lie_about_the_key_is_refused_by_name_and_nothing_is_sealed";
    let Some(caller) = caller(test, &EITHER) else {
        return;
    };
    assert_eq!(lies(Kind::Key).count(), 13);
    // A host's lies about collateral are the same whatever the question goes in.
    for lie in lies(Kind::Key).chain([Lie::CollateralForeign, Lie::CollateralNone]) {
        let middle = ManInTheMiddle::start(own(lie)).unwrap();
        let asked = caller.ask_sealed(&middle, "digits", &[]);
        asked.is_refused(lie);
        asked.keeps_nothing(lie);
        let record = middle.record();
        assert!(!record.is_empty(), "{lie}");
        assert_eq!(sealed(record), 0, "{lie}");
        nothing_was_sent(record, lie);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_seals_nothing_to_a_key_that_is_not_proven() {
    let test = "the_library_seals_nothing_to_a_key_that_is_not_proven";
    let Some(caller) = caller(test, &EITHER) else {
        return;
    };
    let honest = ManInTheMiddle::start(own(Lie::None)).unwrap();
    caller.sealing_builder(&honest).connect().await.unwrap();
    for lie in lies(Kind::Key) {
        let middle = ManInTheMiddle::start(own(lie)).unwrap();
        let refused = caller.sealing_builder(&middle).connect().await;
        let error = refused.unwrap_err();
        assert_eq!(error.deciding(), lie.refused_by(), "{lie}: {error}");
        assert_eq!(i32::from(error.exit()), exit_of(lie.refused_by()), "{lie}");
        assert_eq!(sealed(middle.record()), 0, "{lie}");
        nothing_was_sent(middle.record(), lie);
    }
}

/// `touchstone ask` before this liar, by as many callers as that takes.
fn is_refused(caller: &Caller, middle: &ManInTheMiddle, model: &str, lie: Lie) {
    let (callers, refused, most) = shape(lie);
    let ask = || caller.ask_sealed(middle, model, &["--timeout", "60"]);
    let asked = match lie {
        Lie::OhttpAnswerSwap => std::thread::scope(|scope| {
            let both = [scope.spawn(ask), scope.spawn(ask)];
            both.map(|one| one.join().unwrap()).into_iter().collect()
        }),
        _ => (0..callers).map(|_| ask()).collect::<Vec<_>>(),
    };
    let (honest, lied_to) = asked.split_at(callers - refused);
    for asked in honest {
        assert_eq!(asked.exit, 0, "{lie}: {}", asked.words);
        assert_eq!(caller.check(&asked.folder).2, "ohttp-key", "{lie}");
    }
    for asked in lied_to {
        asked.is_refused(lie);
        // The key was proven. Nothing came that could be an answer.
        assert!(asked.folder.join("session.json").exists(), "{lie}");
        assert!(!asked.folder.join("response.bin").exists(), "{lie}");
    }
    assert_eq!(sealed(middle.record()), most, "{lie}");
    nothing_was_told(middle.record(), lie);
}

#[test]
fn every_lie_about_sealed_requests_is_refused_by_name_and_tells_nothing() {
    let test = "every_lie_about_sealed_requests_is_refused_by_name_and_tells_nothing";
    let Some(caller) = caller(test, &EITHER) else {
        return;
    };
    assert_eq!(lies(Kind::Sealed).count(), 18);
    for lie in lies(Kind::Sealed) {
        let middle = ManInTheMiddle::start(own(lie)).unwrap();
        is_refused(&caller, &middle, "digits", lie);
    }
}

async fn ask(client: &touchstone_client::Client) -> Result<Verified, Error> {
    let provisional = client.infer("digits", &[tensor()]).await?;
    Ok(provisional.verified().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_believes_no_lie_about_sealed_requests() {
    let test = "the_library_believes_no_lie_about_sealed_requests";
    let Some(caller) = caller(test, &EITHER) else {
        return;
    };
    for lie in [Lie::None].into_iter().chain(lies(Kind::Sealed)) {
        let middle = ManInTheMiddle::start(own(lie)).unwrap();
        let one = caller.sealing_builder(&middle).connect().await.unwrap();
        let two = caller.sealing_builder(&middle).connect().await.unwrap();
        let (first, second) = match lie {
            Lie::OhttpAnswerSwap => tokio::join!(ask(&one), ask(&two)),
            _ => (ask(&one).await, ask(&two).await),
        };
        let mut refused = 0;
        for answer in [first, second] {
            match answer {
                Ok(verified) => assert_eq!(verified.outputs()[0].data, tensor().data, "{lie}"),
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.deciding(), lie.refused_by(), "{lie}: {error}");
                    assert_eq!(i32::from(error.exit()), exit_of(lie.refused_by()), "{lie}");
                    let retry = error.verdict().conclusion.class == Some(Class::Retry);
                    assert_eq!(retry, lie == Lie::Ohttp503, "{lie}");
                }
            }
        }
        let expected = match lie {
            Lie::None => 0,
            Lie::OhttpAnswerReplay => 1,
            // The second client was shown nothing but a key of the liar's.
            _ => 2,
        };
        assert_eq!(refused, expected, "{lie}");
        drop((one, two));
        nothing_was_told(middle.record(), lie);
    }
}

/// Before the real host and enclave.
#[test]
fn lies_about_sealed_requests_before_a_real_enclave_are_refused_by_name() {
    let test = "lies_about_sealed_requests_before_a_real_enclave_are_refused_by_name";
    let Some(stack) = shared_stack(test) else {
        return;
    };
    let caller = caller_of(&stack, &EITHER);
    let before = |lie| {
        let config = Config::before(Upstream::Address(stack.host().address()), lie);
        ManInTheMiddle::start(config).unwrap()
    };
    caller.is_answered_sealed(&before(Lie::None), MODEL, &[]);
    let told = |lie: &Lie| !lie.needs_own_server() && !lie.needs_another();
    for lie in lies(Kind::Key).filter(told) {
        let middle = before(lie);
        let asked = caller.ask_sealed(&middle, MODEL, &[]);
        asked.is_refused(lie);
        assert_eq!(sealed(middle.record()), 0, "{lie}");
        nothing_was_sent(middle.record(), lie);
    }
    for lie in lies(Kind::Sealed).filter(told) {
        is_refused(&caller, &before(lie), MODEL, lie);
    }
}
