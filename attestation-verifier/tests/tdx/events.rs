//! Event logs: what they replay to, and what is no log.

use std::path::Path;

use attestation_verifier::events::{self, EventLogError, MOST_EVENTS, Replay};
use ring::digest::{SHA384, digest};
use serde_json::{Value, json};
use touchstone_formats::evidence::EventLog;
use touchstone_formats::text::Base64Bytes;
use touchstone_testkit::events::{Event, EventLog as Made, event_type};
use touchstone_testkit::fixtures;

use crate::support::file;

fn log(format: &str, data: &[u8]) -> EventLog {
    EventLog {
        format: format.into(),
        data: Base64Bytes(data.to_vec()),
    }
}

fn ccel(data: &[u8]) -> Result<Replay, EventLogError> {
    events::replay(&log(events::CCEL, data))
}

fn dstack(entries: &Value) -> Result<Replay, EventLogError> {
    events::replay(&log(events::DSTACK, entries.to_string().as_bytes()))
}

fn sha384(parts: &[&[u8]]) -> [u8; 48] {
    digest(&SHA384, &parts.concat())
        .as_ref()
        .try_into()
        .unwrap()
}

/// RTMRs of a quote of version 4, by their place.
fn rtmrs(quote: &[u8]) -> Vec<&[u8]> {
    (0..4).map(|n| &quote[48 + 328 + 48 * n..][..48]).collect()
}

fn fixture(path: &str) -> Option<Vec<u8>> {
    let root = fixtures::evidence()?;
    Some(file(Path::new(&root).join("tdx").join(path)))
}

#[test]
fn a_log_that_firmware_wrote_replays() {
    let Some(data) = fixture("trustee-quote4/CCEL_data") else {
        return fixtures::skipped("a_log_that_firmware_wrote_replays", "no evidence fixtures");
    };
    let replay = ccel(&data).unwrap();
    let registers: Vec<u8> = replay.events.iter().map(|event| event.register).collect();
    assert_eq!(registers, [0, 0, 1, 1, 1]);
    assert_eq!([replay.rtmr[2], replay.rtmr[3]], [[0; 48]; 2]);
    // Its last event ends in zeros, which are not padding: nothing is lost at the end of the log without it.
    let end = 9822;
    assert!(data[end..].iter().all(|byte| *byte == 0) && data[end - 1] == 0);
    assert_eq!(ccel(&data[..end]).unwrap(), replay);
    let cut = ccel(&data[..end - 1]).unwrap_err();
    assert!(matches!(cut, EventLogError::Bytes { .. }), "{cut}");
    // It is of another TD than the quote beside it, which lends it no weight.
    let quote = fixture("trustee-quote4/quote.bin").unwrap();
    assert_ne!(rtmrs(&quote)[0], replay.rtmr[0]);
}

#[test]
fn a_log_of_dstacks_replays_to_its_quote() {
    let Some(text) = fixture("dstack-lite/getquote.json") else {
        return fixtures::skipped(
            "a_log_of_dstacks_replays_to_its_quote",
            "no evidence fixtures",
        );
    };
    let answer: Value = serde_json::from_slice(&text).unwrap();
    let data = answer["event_log"].as_str().unwrap();
    let replay = events::replay(&log(events::DSTACK, data.as_bytes())).unwrap();
    let quote = fixture("dstack-lite/quote.bin").unwrap();
    for (n, rtmr) in rtmrs(&quote).into_iter().enumerate() {
        assert_eq!(rtmr, replay.rtmr[n], "RTMR{n}");
    }
    let runtime = replay.events.iter().filter(|event| event.register == 3);
    let words: Vec<String> = runtime.map(|event| event.words()).collect();
    assert_eq!(words.len(), 9);
    assert_eq!(words[1], "app-id=86b0e55f2fa8e4fb69d890f14f54d5612707646e");
    assert_eq!(words[8], "system-ready=");
    // What firmware measured is known by digest alone, whatever names stand beside it.
    assert!(
        replay
            .events
            .iter()
            .filter(|e| e.register < 3)
            .all(|e| e.content.is_none())
    );

    // Any other event, order or payload is another RTMR3.
    let entries: Value = serde_json::from_str(data).unwrap();
    let place = entries.as_array().unwrap().len() - 9;
    let changes: [fn(&mut Vec<Value>, usize); 4] = [
        |all, place| all.swap(place, place + 1),
        |all, place| drop(all.remove(place)),
        |all, place| all[place + 2]["event_payload"] = json!("00"),
        |all, place| all[place]["event"] = json!("system-preparinh"),
    ];
    for change in changes {
        let mut all = entries.as_array().unwrap().clone();
        change(&mut all, place);
        assert_ne!(dstack(&json!(all)).unwrap().rtmr[3], replay.rtmr[3]);
    }
}

#[test]
fn registers_are_extended_one_by_one_from_zero() {
    let mut made = Made::boot();
    let replay = ccel(&made.to_ccel()).unwrap();
    for n in 0..4 {
        assert_eq!(replay.rtmr[n], made.replay(n));
    }
    assert_eq!(replay.events.len(), made.events.len());
    // What is no action is extended into nothing, wherever it says it stands.
    for mr_index in 0..=9 {
        let mut event = Event::new(0, event_type::NO_ACTION, b"StartupLocality");
        event.mr_index = mr_index;
        made.events.insert(0, event);
    }
    assert_eq!(ccel(&made.to_ccel()).unwrap(), replay);
    // MRTD cannot be extended, nor can what does not exist.
    for mr_index in [0, 5, 0x101, u32::MAX] {
        let mut bad = Made::boot();
        bad.events[0].mr_index = mr_index;
        let error = ccel(&bad.to_ccel()).unwrap_err();
        assert!(
            error.to_string().contains("cannot be extended"),
            "{mr_index}: {error}"
        );
    }
}

/// A log with digests by several algorithms, `(TCG's number, length)`; the registers know those by SHA-384.
fn several(
    algorithms: &[(u16, u16)],
    events: &[Event],
    order: fn(&mut Vec<(u16, u16)>),
) -> Vec<u8> {
    let mut spec = b"Spec ID Event03\0".to_vec();
    spec.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    spec.extend((algorithms.len() as u32).to_le_bytes());
    for (id, size) in algorithms {
        spec.extend([id.to_le_bytes(), size.to_le_bytes()].concat());
    }
    spec.push(0);
    let mut out = [0_u32.to_le_bytes(), event_type::NO_ACTION.to_le_bytes()].concat();
    out.extend([0; 20]);
    out.extend((spec.len() as u32).to_le_bytes());
    out.extend(spec);
    for event in events {
        let mut own = algorithms.to_vec();
        order(&mut own);
        for number in [event.mr_index, event.event_type, own.len() as u32] {
            out.extend(number.to_le_bytes());
        }
        for (id, size) in own {
            out.extend(id.to_le_bytes());
            match id {
                0x0c => out.extend(event.digest),
                _ => out.extend(vec![0x5a; size.into()]),
            }
        }
        out.extend((event.data.len() as u32).to_le_bytes());
        out.extend(&event.data);
    }
    out
}

#[test]
fn of_several_digests_those_by_sha384_count() {
    const SHA256: (u16, u16) = (0x0b, 32);
    const SHA384: (u16, u16) = (0x0c, 48);
    const SM3: (u16, u16) = (0x12, 32);
    let made = Made::boot();
    let honest = ccel(&made.to_ccel()).unwrap();
    let log = |algorithms: &[(u16, u16)], order| ccel(&several(algorithms, &made.events, order));
    assert_eq!(several(&[SHA384], &made.events, |_| ()), made.to_ccel());
    let both = [SHA256, SHA384];
    for algorithms in [&both[..], &[SHA384, SHA256], &[SM3, SHA384, SHA256]] {
        assert_eq!(log(algorithms, |_| ()).as_ref(), Ok(&honest));
        assert_eq!(log(algorithms, |own| own.reverse()).as_ref(), Ok(&honest));
    }
    let says = |result: Result<Replay, EventLogError>, words: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let each = "not one digest by each algorithm";
    says(log(&both, |own| own.truncate(1)), each);
    says(log(&both, |own| *own = own.split_off(1)), each);
    says(log(&both, |own| own.push(SHA256)), each);
    says(log(&both, |own| own[1] = SHA256), each);
    says(log(&both, |own| own[0] = SHA384), each);
    says(log(&both, |own| own[0] = SM3), each);
    says(log(&both, Vec::clear), each);
    says(log(&[SHA256], |_| ()), "not SHA-384 among");
    says(log(&[], |_| ()), "not SHA-384 among");
    says(log(&[(0x0c, 32)], |_| ()), "not SHA-384 among");
    says(log(&[SHA384, SHA384], |_| ()), "twice");
    says(log(&[SHA384, SHA256, SHA256], |_| ()), "twice");
    let many: Vec<(u16, u16)> = (1..=17).map(|id| (id, 48)).collect();
    says(log(&many, |_| ()), "more algorithms");
    assert_eq!(log(&many[..16], |_| ()).as_ref(), Ok(&honest));
    // A length of digests that leads out of the log.
    let mut data = several(&both, &made.events, |_| ());
    data[62..64].fill(0xff);
    says(ccel(&data), "ends within");
}

#[test]
fn padding_is_passed_over_and_nothing_else() {
    let replay = ccel(&Made::boot().to_ccel()).unwrap();
    for (length, byte) in [(1, 0), (7, 0xff), (65_536, 0), (65_536, 0xff)] {
        let mut made = Made::boot();
        made.padding = (length, byte);
        assert_eq!(ccel(&made.to_ccel()).unwrap(), replay);
        // A byte behind it belongs to an event that is none.
        let mut data = made.to_ccel();
        data.push(1);
        assert!(ccel(&data).is_err());
    }
}

#[test]
fn no_beginning_of_a_log_is_one() {
    let mut made = Made::boot();
    // A last byte that is not taken for padding.
    made.events.push(Event::new(2, event_type::IPL, b"end"));
    let data = made.to_ccel();
    let whole = ccel(&data).unwrap();
    let mut complete = 0;
    for length in 0..data.len() {
        // Where an event ends a shorter log ends: it replays to something else.
        if let Ok(replay) = ccel(&data[..length]) {
            assert_ne!(replay.rtmr, whole.rtmr);
            complete += 1;
        }
    }
    assert!((1..=made.events.len()).contains(&complete), "{complete}");
}

#[test]
fn every_bit_of_the_first_event_and_of_a_digest_counts() {
    let data = Made::boot().to_ccel();
    let whole = ccel(&data).unwrap();
    let first = 32 + u32::from_le_bytes(data[28..32].try_into().unwrap()) as usize;
    // Platform class, minor version, errata and UINTN size say nothing about how events are written.
    let free = |at: usize| (48..53).contains(&at) || matches!(at, 54 | 55);
    for at in 0..first + 12 + 2 + 48 {
        // The kind of the first event that is extended: nothing depends on it, unless it is no action.
        if free(at) || (first + 4..first + 8).contains(&at) {
            continue;
        }
        for bit in 0..8 {
            let mut other = data.clone();
            other[at] ^= 1 << bit;
            let replay = ccel(&other);
            assert!(
                replay.is_err() || replay.unwrap().rtmr != whole.rtmr,
                "byte {at} bit {bit}"
            );
        }
    }
}

#[test]
fn what_is_no_log_is_refused_with_a_reason() {
    let error = events::replay(&log("CCEL", &Made::boot().to_ccel())).unwrap_err();
    assert_eq!(error, EventLogError::Format("CCEL".into()));
    assert!(matches!(
        ccel(b"").unwrap_err(),
        EventLogError::Bytes { offset: 0, .. }
    ));

    let good =
        json!({"imr":3,"event_type":134_217_729,"digest":"","event":"a","event_payload":"00"});
    dstack(&json!([good])).unwrap();
    let with = |name: &str, value: Value| {
        let mut entry = good.clone();
        entry[name] = value;
        dstack(&json!([entry]))
    };
    for (name, value) in [
        ("imr", json!(4)),
        ("imr", json!(-1)),
        ("imr", json!(256)),
        ("event_type", json!("4")),
        ("event_type", json!(4_294_967_296_u64)),
        ("event_type", json!(1)),
        ("digest", json!("00")),
        ("digest", json!("0".repeat(96))),
        ("event_payload", json!("0")),
        ("event_payload", json!("AB")),
        ("event_payload", json!(null)),
        ("event", json!(7)),
        ("version", json!(3)),
    ] {
        assert!(with(name, value.clone()).is_err(), "{name} = {value}");
    }
    for text in ["", "{}", "[", "[] []", "[1]", "null", "[{}]"] {
        let result = events::replay(&log(events::DSTACK, text.as_bytes()));
        assert!(
            matches!(result, Err(EventLogError::Json(_))),
            "{text}: {result:?}"
        );
    }
    // A member twice, which two readers could read in two ways.
    let twice = good.to_string().replacen("{", "{\"imr\":3,", 1);
    assert!(matches!(
        events::replay(&log(events::DSTACK, format!("[{twice}]").as_bytes())),
        Err(EventLogError::Json(_))
    ));
    assert!(matches!(
        events::replay(&log(events::DSTACK, &[0xc3, 0x28])),
        Err(EventLogError::Json(_))
    ));
    // Nothing is extended by an empty list.
    assert_eq!(dstack(&json!([])).unwrap().rtmr, [[0; 48]; 4]);
}

#[test]
fn runtime_events_are_known_by_what_was_hashed() {
    let kind = 0x0800_0001_u32;
    let event = |name: &str, payload: &str, version: Value| json!({"imr":3,"event_type":kind,"digest":"","event":name,"event_payload":payload,"version":version});
    let one = |entry: Value| dstack(&json!([entry])).unwrap().events.remove(0);
    let first = one(event("compose-hash", "abcd", Value::Null));
    let hashed = sha384(&[&kind.to_le_bytes(), b":compose-hash:", &[0xab, 0xcd]]);
    assert_eq!(first.digest, hashed);
    assert_eq!(first.words(), "compose-hash=abcd");
    assert_eq!(one(event("compose-hash", "abcd", json!(1))), first);
    let second = one(event("compose-hash", "abcd", json!(2)));
    let canonical =
        r#"{"event":"compose-hash","event_type":134217729,"payload":"abcd","version":2}"#;
    assert_eq!(second.digest, sha384(&[canonical.as_bytes()]));
    assert_eq!(second.words(), "compose-hash=abcd");
    // The colon between name and payload could stand elsewhere: such names are not known.
    let odd = one(event("compose-hash:a", "62", Value::Null));
    assert_eq!(
        odd.digest,
        one(event("compose-hash", "613a62", Value::Null)).digest
    );
    assert!(odd.words().starts_with("sha384:"), "{}", odd.words());
    for name in ["", "a b", "a=b", "é", &"n".repeat(65)] {
        assert_eq!(one(event(name, "", Value::Null)).content, None, "{name}");
    }
    // Other events are known by the digest that they come with.
    let digest = "5a".repeat(48);
    let other = json!({"imr":3,"event_type":4,"digest":digest,"event":"app-id","event_payload":""});
    assert_eq!(one(other).words(), format!("sha384:{digest}"));
}

#[test]
fn the_work_of_a_log_is_bounded() {
    let event = Event::new(0, event_type::SEPARATOR, b"");
    let mut made = Made::boot();
    made.events = vec![event.clone(); MOST_EVENTS];
    ccel(&made.to_ccel()).unwrap();
    made.events.push(event);
    assert_eq!(ccel(&made.to_ccel()), Err(EventLogError::TooMany));
    // A length that leads out of the log, or around the end of numbers.
    let mut data = Made::boot().to_ccel();
    let first = 32 + u32::from_le_bytes(data[28..32].try_into().unwrap()) as usize;
    for size in [u32::MAX, u32::MAX - 100, 1 << 20] {
        data[first + 62..first + 66].copy_from_slice(&size.to_le_bytes());
        assert!(matches!(ccel(&data), Err(EventLogError::Bytes { .. })));
    }
}
