//! Sessions that must be refused, before a server whose quotes are genuine and whose keys the kit knows.

use std::time::Duration;

use touchstone_testkit::mitm::{Kind, Lie, ManInTheMiddle};

use crate::common::{ALERTS, caller, exit_of, holds_prompt, nothing_was_sent, own, patience};

/// The twin of everything below: the same server, caller and policy, without the lie. It also shows that
/// what is looked for is found where it was sent.
#[test]
fn the_honest_twin_is_answered_and_what_it_was_asked_is_seen() {
    let test = "the_honest_twin_is_answered_and_what_it_was_asked_is_seen";
    let Some(caller) = caller(test, &[]) else {
        return;
    };
    let middle = ManInTheMiddle::start(own(Lie::None)).unwrap();
    for more in [
        vec![],
        vec!["--json-encoding", "--require", "logged quoted"],
    ] {
        caller.is_answered(&middle, "digits", &more);
    }
    let connections = middle.record().connections();
    let tls: Vec<_> = connections.iter().filter(|seen| seen.tls).collect();
    assert_eq!(tls.len(), 2, "each question has its own connection");
    assert!(holds_prompt(&tls[0].read));
    assert!(tls[0].confided() > 256);
    assert!(!holds_prompt(&tls[0].from_client), "encrypted on the wire");
    assert!(
        tls.iter()
            .all(|seen| !seen.offered_psk && !seen.told.is_empty())
    );
}

#[test]
fn every_lie_about_a_session_is_refused_by_name_and_nothing_is_sent() {
    let test = "every_lie_about_a_session_is_refused_by_name_and_nothing_is_sent";
    let Some(caller) = caller(test, &[]) else {
        return;
    };
    let lies: Vec<Lie> = Lie::ALL
        .iter()
        .copied()
        .filter(|lie| lie.leaves_nothing_proven() && !lie.is_about_sealing())
        .collect();
    assert_eq!(lies.len(), 16);
    for lie in lies {
        let middle = ManInTheMiddle::start(own(lie)).unwrap();
        let asked = caller.ask(&middle, "digits", &[]);
        asked.is_refused(lie);
        asked.keeps_nothing(lie);
        let record = middle.record();
        assert!(record.connections().iter().any(|seen| seen.tls), "{lie}");
        nothing_was_sent(record, lie);
    }
}

/// The library by itself, here built with TLS 1.2 in it, as programs of others may have it.
#[tokio::test(flavor = "multi_thread")]
async fn the_library_refuses_what_the_command_refuses() {
    let test = "the_library_refuses_what_the_command_refuses";
    let Some(caller) = caller(test, &[]) else {
        return;
    };
    let honest = ManInTheMiddle::start(own(Lie::None)).unwrap();
    caller.builder(&honest).connect().await.unwrap();
    for lie in Lie::ALL.iter().copied() {
        if !lie.leaves_nothing_proven() || lie.is_about_sealing() {
            continue;
        }
        let middle = ManInTheMiddle::start(own(lie)).unwrap();
        let error = caller.builder(&middle).connect().await.unwrap_err();
        assert_eq!(error.deciding(), lie.refused_by(), "{lie}: {error}");
        assert_eq!(i32::from(error.exit()), exit_of(lie.refused_by()), "{lie}");
        nothing_was_sent(middle.record(), lie);
    }
}

/// A session that is damaged on its way is no session.
#[test]
fn a_damaged_session_is_refused_by_name_and_nothing_is_sent() {
    let test = "a_damaged_session_is_refused_by_name_and_nothing_is_sent";
    let Some(caller) = caller(test, &[]) else {
        return;
    };
    for lie in Lie::ALL
        .iter()
        .copied()
        .filter(|lie| lie.kind() == Kind::Stream)
    {
        let mut config = own(lie);
        config.turn = 2;
        let middle = ManInTheMiddle::start(config).unwrap();
        let expected = (exit_of(lie.refused_by()), lie.refused_by());
        // Answers are crossed between two who ask at the same time.
        let callers = if lie == Lie::Swap { 2 } else { 1 };
        std::thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| {
                    let asked = caller.ask(&middle, "digits", &patience(lie));
                    let found = (asked.exit, asked.deciding.as_str());
                    assert_eq!(found, expected, "{lie}: {}", asked.words);
                });
            }
        });
        nothing_was_sent(middle.record(), lie);
        let mut lied_to = 0;
        for seen in middle.record().connections() {
            if let Some(before) = seen.sent_before_lie {
                lied_to += 1;
                let after = seen.from_client.len() - before;
                assert!(after <= ALERTS, "{lie}: {after} bytes after the lie");
            }
        }
        assert!(lied_to >= callers, "{lie}");
    }
    let mut config = own(Lie::Delay);
    (config.turn, config.delay) = (2, Duration::from_millis(300));
    let middle = ManInTheMiddle::start(config).unwrap();
    caller.is_answered(&middle, "digits", &[]);
}

/// Tickets on a proven connection, then a server that goes on with them whatever its client wants. What was sent before
/// went to a proven enclave; what came after was refused.
#[test]
fn no_session_is_resumed() {
    let test = "no_session_is_resumed";
    let Some(caller) = caller(test, &[]) else {
        return;
    };
    let middle = ManInTheMiddle::start(own(Lie::Resumption)).unwrap();
    let asked = caller.ask(&middle, "digits", &[]);
    assert_eq!(
        (asked.exit, asked.deciding.as_str()),
        (3, "connection.tls"),
        "{}",
        asked.words
    );
    let connections = middle.record().connections();
    let tls: Vec<_> = connections.iter().filter(|seen| seen.tls).collect();
    assert!(tls.len() >= 2);
    assert!(tls.iter().all(|seen| !seen.offered_psk));
    assert!(
        holds_prompt(&tls[0].read),
        "proven, before it was sent away"
    );
    for seen in &tls[1..] {
        let before = seen.sent_before_lie.expect("resumed unasked");
        assert!(seen.from_client.len() - before <= ALERTS);
    }
}
