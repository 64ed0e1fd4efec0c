//! Against registers that hardware signed: the quote and the event log of a dstack guest (QEMU 8.2.2, Intel TDX), fixture
//! `tdx/dstack-lite`. Its firmware, kernel, initrd and command line are not to be had, so that their digests are taken from
//! the log; which events there are, of which type, in which order and register, and the digests of all others are ours.

use serde::Deserialize;
use touchstone_launch::Sha384;
use touchstone_launch::tdx::rtmr::{Boot, Edk2, Event, replay};
use touchstone_testkit::fixtures::{evidence, skipped};

use crate::support::{Kernel, PATCHED};

#[derive(Deserialize)]
struct Answer {
    quote: String,
    event_log: String,
}

#[derive(Deserialize)]
struct Logged {
    imr: u8,
    event_type: u32,
    digest: String,
}

#[test]
fn events_replay_to_the_registers_of_a_real_quote() {
    let Some(folder) = evidence() else {
        let name = "events_replay_to_the_registers_of_a_real_quote";
        return skipped(name, "no fixtures");
    };
    let text = std::fs::read(folder.join("tdx/dstack-lite/getquote.json")).unwrap();
    let answer: Answer = serde_json::from_slice(&text).unwrap();
    let quote = hex::decode(answer.quote).unwrap();
    let log: Vec<Logged> = serde_json::from_str(&answer.event_log).unwrap();
    let log: Vec<&Logged> = log
        .iter()
        .filter(|event| matches!(event.imr, 1 | 2))
        .collect();

    let kernel = Kernel::default().image();
    let boot = Boot::new(&kernel, b"an initrd", "a command line").unwrap();
    let mut events = boot.events(PATCHED, Edk2::Stable202411).unwrap();
    let form = |event: &Event| (event.register, event.kind);
    let logged: Vec<(u8, u32)> = log
        .iter()
        .map(|event| (event.imr, event.event_type))
        .collect();
    assert_eq!(events.iter().map(form).collect::<Vec<_>>(), logged);

    let mut taken = Vec::new();
    for (event, logged) in events.iter_mut().zip(&log) {
        let digest: Sha384 = logged.digest.parse().unwrap();
        if event.digest != digest {
            taken.push(event.what.clone());
            event.digest = digest;
        }
    }
    let ours = ["kernel", "command line", "initrd"];
    assert_eq!(taken.len(), ours.len(), "{taken:?}");
    assert!(
        taken
            .iter()
            .zip(ours)
            .all(|(what, ours)| what.starts_with(ours))
    );
    // RTMR1 and RTMR2 of a version 4 quote: 48 bytes of header, then 376 and 424 of the TD report.
    for (register, offset) in [(1, 48 + 376), (2, 48 + 424)] {
        let signed = hex::encode(&quote[offset..offset + 48]);
        assert_eq!(replay(&events, register).to_string(), signed);
        // And not without one of them.
        let fewer = &events[..events.len() - 1];
        assert_eq!(replay(fewer, register).to_string() == signed, register == 2);
    }
}
