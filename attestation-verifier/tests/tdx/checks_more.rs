//! What verdicts on TDX evidence rest on beside single checks: levels that count together, applications that are known by
//! their events.

use ring::digest::{SHA384, digest};
use serde_json::json;
use touchstone_formats::evidence::EventLog;
use touchstone_formats::text::Base64Bytes;
use touchstone_testkit::events::Event;
use touchstone_testkit::machine::TdxMachine;

use crate::checks_case::{Case, brief, case, joined, strict, strict_v4, tolerated};
use crate::simulated::v4;

/// dstack's runtime event of this name and payload.
fn runtime(name: &str, payload: &[u8]) -> Event {
    let mut event = Event::new(
        3,
        DSTACK_RUNTIME,
        &[name.as_bytes(), b"=", payload].concat(),
    );
    let kind = DSTACK_RUNTIME.to_le_bytes();
    let hashed = [&kind[..], b":", name.as_bytes(), b":", payload].concat();
    event.digest = digest(&SHA384, &hashed)
        .as_ref()
        .try_into()
        .expect("48 bytes");
    event
}

const DSTACK_RUNTIME: u32 = 0x0800_0001;

/// A machine's log as dstack writes it; the digests of runtime events are left out.
fn dstack_log(m: &TdxMachine) -> Option<EventLog> {
    let entries = m.events.events.iter().map(|event| {
        let (mut digest, mut name, mut payload) = (hex::encode(event.digest), "", &[][..]);
        if event.event_type == DSTACK_RUNTIME {
            let at = event.data.iter().position(|b| *b == b'=').expect("name=payload");
            name = std::str::from_utf8(&event.data[..at]).expect("text");
            (digest, payload) = (String::new(), &event.data[at + 1..]);
        }
        json!({
            "imr": event.mr_index - 1, "event_type": event.event_type, "digest": digest, "event": name,
            "event_payload": hex::encode(payload),
        })
    });
    Some(EventLog {
        format: "dstack".into(),
        data: Base64Bytes(json!(entries.collect::<Vec<_>>()).to_string().into_bytes()),
    })
}

/// An application on dstack: what runs is pinned by its events, RTMR3 itself differs between instances.
#[test]
fn an_application_is_pinned_by_its_events() {
    let application = |events: Vec<Event>| {
        let mut case = strict();
        let machine = &mut case.scene.machine;
        machine.events.events.extend(events);
        machine.report.report.rtmr[3] = machine.events.replay(3);
        case.log = dstack_log;
        case.set(
            "tdx.rtmr3",
            "{ waive = \"differs between instances; its events are pinned\" }",
        );
        let known =
            "[\"compose-hash=c0de\", \"compose-hash=c0df\", \"instance-id=*\", \"system-ready=\"]";
        case.set("tdx.rtmr3.events", &format!("{{ expect = {known} }}"));
        case.judge()
    };
    let own = |compose: &[u8], instance: &[u8]| {
        vec![
            runtime("compose-hash", compose),
            runtime("instance-id", instance),
            runtime("system-ready", b""),
        ]
    };
    for (compose, instance) in [(b"\xc0\xde", &b"1"[..]), (b"\xc0\xdf", b"another")] {
        let verdict = application(own(compose, instance));
        assert_eq!(verdict.exit(), 6, "{}", verdict.words());
        let check = verdict.checks.find("tdx.rtmr3.events").expect("made");
        let found = format!("compose-hash={}", hex::encode(compose));
        assert_eq!(check.found[0], found);
    }
    let honest = || own(b"\xc0\xde", b"1");
    let lies: [(&str, Vec<Event>); 6] = [
        ("another application", own(b"\xc0\xd0", b"1")),
        ("nothing but a payload", own(b"", b"1")),
        (
            "both applications",
            [vec![runtime("compose-hash", b"\xc0\xdf")], honest()].concat(),
        ),
        ("no application", honest().split_off(1)),
        (
            "one event more",
            [honest(), vec![runtime("shell", b"")]].concat(),
        ),
        ("none", Vec::new()),
    ];
    for (name, events) in lies {
        let verdict = application(events);
        let decided = (verdict.exit(), verdict.deciding());
        assert_eq!(
            decided,
            (4, Some("tdx.rtmr3.events")),
            "{name}: {}",
            verdict.words()
        );
    }
}

/// A TD that was launched under an old module is said to need a launch.
#[test]
fn a_td_that_outlived_its_module_has_to_be_launched_anew() {
    let mut case = strict();
    case.report(|r| r.tee_tcb_svn[0] -= 1);
    let verdict = case.judge();
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (4, Some("tdx.tcb.status"))
    );
    let check = verdict.checks.find("tdx.tcb.status").expect("made");
    assert!(
        check.reason.contains("launch the TD anew"),
        "{}",
        check.reason
    );
    // Where the present is out of date as well it does not help.
    case.report(|r| r.v1_5.as_mut().expect("a 1.5 body").tee_tcb_svn_2[0] -= 1);
    let verdict = case.judge();
    let check = verdict.checks.find("tdx.tcb.status").expect("made");
    assert!(
        !check.reason.contains("launch the TD anew"),
        "{}",
        check.reason
    );
    assert!(
        check.reason.contains("TDX module that runs now: OutOfDate"),
        "{}",
        check.reason
    );
}

/// A module of major version 0 has no levels of its own: its versions are the platform's first TDX components.
#[test]
fn the_first_tdx_module_is_judged_with_the_platform() {
    let old = |isvsvn: u8| {
        let mut case = case(v4());
        case.report(|r| (r.tee_tcb_svn[0], r.tee_tcb_svn[1]) = (isvsvn, 0));
        case.scene.machine.tcb_info.tdx_module_identities.clear();
        case
    };
    let verdict = old(13).judge();
    assert_eq!(verdict.exit(), 6, "{}", verdict.words());
    let verdict = old(12).judge();
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (4, Some("tdx.tcb.status"))
    );
    let verdict = old(1).judge();
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (4, Some("tdx.tcb.level"))
    );
}

/// A verdict says what the platform is, whether or not it is accepted, and every waiver.
#[test]
fn a_verdict_describes_the_platform() {
    let case = strict();
    let verdict = case.judge();
    let report = &case.scene.machine.report.report;
    assert_eq!(verdict.context.measurement, Some(hex::encode(report.mr_td)));
    let platform = &verdict.context.platform;
    assert_eq!(platform["tee"], "tdx");
    assert_eq!(platform["simulated"], true);
    assert_eq!(
        platform["fmspc"],
        hex::encode(case.scene.machine.platform.fmspc)
    );
    assert_eq!(platform["module"]["isvsvn"], 13);
    assert_eq!(platform["event_log"], "replayed");
    assert_eq!(platform["tcb"]["levels"].as_array().map(Vec::len), Some(5));
    let risks = verdict.context.residual_risks.join("\n");
    for words in [
        "Physical access",
        "HECKLER",
        "ACPI",
        "MRTD covers",
        "SMT is on",
        "SIMULATED",
    ] {
        assert!(risks.contains(words), "{words}: {risks}");
    }
    assert!(!risks.contains("TDX 1.0"), "{risks}");
    let old = strict_v4().judge().context.residual_risks.join("\n");
    assert!(old.contains("TDX 1.0"), "{old}");
}

/// The highest level of the platform that is reached is the one, wherever it stands in the text.
#[test]
fn levels_of_platforms_may_stand_in_any_order() {
    for (honest, exit, deciding) in [
        (strict as fn() -> Case, 6, None),
        (outdated, 4, Some("tdx.tcb.status")),
    ] {
        let mut case = honest();
        case.scene.machine.tcb_info.tcb_levels.reverse();
        let verdict = case.judge();
        let decided = (verdict.exit(), verdict.deciding());
        assert_eq!(decided, (exit, deciding), "{}", verdict.words());
    }
}

/// What is tolerated, under a policy that does not tolerate it.
fn outdated() -> Case {
    let mut case = tolerated();
    case.set("tdx.tcb.status", "{ expect = [\"UpToDate\"] }");
    case
}

/// What Intel's formats leave open is accepted under the strict template.
#[test]
fn what_formats_leave_open_holds() {
    for case in [brief(), joined()] {
        let verdict = case.judge();
        assert_eq!(verdict.exit(), 6, "{}", verdict.words());
    }
}
