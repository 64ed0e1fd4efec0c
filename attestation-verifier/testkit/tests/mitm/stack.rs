//! The same before the real programs: a host that relays, and the enclave's own listener.

use std::time::Duration;

use touchstone_testkit::mitm::{Config, Kind, Lie, ManInTheMiddle, Upstream};

use crate::common::{MODEL, caller_of, exit_of, nothing_was_sent, patience, shared_stack};

/// Relays with keys of their own learn nothing but that somebody asked for a session.
#[test]
fn relays_before_a_real_enclave_are_refused_by_name_and_learn_nothing() {
    let test = "relays_before_a_real_enclave_are_refused_by_name_and_learn_nothing";
    let Some(stack) = shared_stack(test) else {
        return;
    };
    let caller = caller_of(&stack, &[]);
    let lies = [
        Lie::None,
        Lie::OwnCertificate,
        Lie::SameCertificate,
        Lie::Reflection,
        Lie::Replay,
        Lie::SwapKeyset,
        Lie::Tls12,
        Lie::CollateralForeign,
        Lie::CollateralNone,
    ];
    let records = stack.url();
    // The enclave's listener has no records: they are the host's.
    for (upstream, more) in [
        (stack.host().address(), vec![]),
        (stack.enclave_tls(), vec!["--records", records.as_str()]),
    ] {
        for lie in lies {
            if lie.kind() == Kind::Host && !more.is_empty() {
                continue;
            }
            let config = Config::before(Upstream::Address(upstream), lie);
            let middle = ManInTheMiddle::start(config).unwrap();
            if lie == Lie::None {
                caller.is_answered(&middle, MODEL, &more);
                continue;
            }
            let asked = caller.ask(&middle, MODEL, &more);
            asked.is_refused(lie);
            nothing_was_sent(middle.record(), lie);
        }
    }
}

/// Alters, drops, doubles, holds back, swaps between two clients, cuts off: answers of a proven enclave.
#[test]
fn damaged_answers_are_refused_by_name() {
    let test = "damaged_answers_are_refused_by_name";
    let Some(stack) = shared_stack(test) else {
        return;
    };
    let caller = caller_of(&stack, &[]);
    let before = |lie| Config::before(Upstream::Address(stack.host().address()), lie);
    for lie in Lie::ALL
        .iter()
        .copied()
        .filter(|lie| lie.kind() == Kind::Stream)
    {
        let middle = ManInTheMiddle::start(before(lie)).unwrap();
        let callers = if lie == Lie::Swap { 2 } else { 1 };
        let expected = (exit_of(lie.refused_by()), lie.refused_by());
        std::thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| {
                    let asked = caller.ask(&middle, MODEL, &patience(lie));
                    let found = (asked.exit, asked.deciding.as_str());
                    assert_eq!(found, expected, "{lie}: {}", asked.words);
                    // The connection was proven; the answer is not kept.
                    assert!(asked.folder.join("session.json").exists(), "{lie}");
                    assert!(!asked.folder.join("response.bin").exists(), "{lie}");
                });
            }
        });
        let lied_to = middle.record().connections();
        let lied_to = lied_to.iter().filter(|seen| seen.sent_before_lie.is_some());
        assert_eq!(lied_to.count(), callers, "{lie}");
    }
    let mut config = before(Lie::Delay);
    config.delay = Duration::from_millis(300);
    caller.is_answered(&ManInTheMiddle::start(config).unwrap(), MODEL, &[]);
}

/// A host that may read along takes the guarantees out of the request: the answer is measured against the caller's own record.
#[test]
fn a_stripped_require_is_found_out() {
    let test = "a_stripped_require_is_found_out";
    let Some(stack) = shared_stack(test) else {
        return;
    };
    let plain = "{ waive = \"the host may read this one\" }";
    let caller = caller_of(&stack, &[("binding", plain)]);
    for (lie, expected) in [
        (Lie::None, (6, "")),
        (Lie::StripRequire, (4, Lie::StripRequire.refused_by())),
    ] {
        let config = Config::before(Upstream::Address(stack.host().address()), lie);
        let middle = ManInTheMiddle::start(config).unwrap();
        let url = format!("http://{}", middle.address());
        let more = ["--plaintext", "--require", "logged quoted"];
        let asked = caller.ask_url(&url, MODEL, &more);
        let (exit, deciding, binding) = caller.check(&asked.folder);
        assert_eq!((exit, deciding.as_str()), expected, "{}", asked.words);
        assert_eq!(binding, "none");
    }
}
