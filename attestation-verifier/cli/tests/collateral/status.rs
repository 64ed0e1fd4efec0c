//! Until when it holds: the date, the check and the exit code.

use attestation_verifier::dates::{parse_rfc3339, rfc3339};
use serde_json::Value;

use crate::place::{DAY, Place, now, snp_machine, tdx_machine};
use crate::support::{Run, policy, touchstone};

fn status(place: &Place, more: &[&str]) -> (Run, Value) {
    let mut args = vec!["collateral", "status", "evidence.bin", "--json"];
    args.extend(["--trust-simulated-root", "root.pem"]);
    args.extend(more);
    let run = place.run(&args);
    let value: Value = serde_json::from_str(&run.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", run.stdout, run.stderr));
    assert_eq!(value["exit"], run.code);
    (run, value)
}

#[test]
fn the_first_piece_to_end_decides() {
    let machine = snp_machine();
    let place = Place::snp(&machine);
    assert_eq!(place.fetch(&[]).code, 0);
    let ends = machine.crl.next_update.unwrap();
    for source in [
        ["--folder", "collateral"],
        ["--collateral", "collateral.json"],
    ] {
        let (run, value) = status(&place, &source);
        assert_eq!(run.code, 0);
        assert_eq!(value["check"], "snp.chain.crl");
        let from = parse_rfc3339(value["refused_from"].as_str().unwrap()).unwrap();
        assert_eq!(from, ends, "good strictly before nextUpdate");
        assert_eq!(value["parts"][0]["to"], rfc3339(ends - 1));
        assert_eq!(value["parts"][0]["name"], "revocation list of the root");
        assert_eq!(value["parts"].as_array().unwrap().len(), 3);
        let left = value["seconds_left"].as_u64().unwrap();
        assert!(left.abs_diff(28 * DAY) < 600);
        assert!(run.stderr.contains("will be refused on"), "{}", run.stderr);

        // The day before, and the day itself.
        let at = |time: u64, more: &[&str]| {
            let time = rfc3339(time);
            status(&place, &[&source[..], &["--at", &time], more].concat())
        };
        assert_eq!(at(ends - DAY, &[]).0.code, 0);
        assert_eq!(at(ends - DAY, &["--within", "1"]).0.code, 0);
        let (run, value) = at(ends - DAY, &["--within", "2"]);
        assert_eq!((run.code, &value["check"]), (5, &"snp.chain.crl".into()));
        let (run, value) = at(from, &[]);
        assert_eq!((run.code, &value["seconds_left"]), (5, &0.into()));
        assert!(
            run.stderr.contains("is refused now because"),
            "{}",
            run.stderr
        );
        assert_eq!(at(from - 1, &[]).0.code, 0, "not a second too early");
    }
}

#[test]
fn a_policy_s_rule_of_age_comes_first() {
    let machine = snp_machine();
    let place = Place::snp(&machine);
    assert_eq!(place.fetch(&[]).code, 0);
    let measurement = hex::encode(machine.report.measurement);
    let measurement = format!("{{ expect = [\"{measurement}\"] }}");
    let models = format!("{{ expect = [\"{}\"] }}", "ab".repeat(32));
    let with = |more: &[(&str, &str)]| {
        let mut all = vec![
            ("snp.measurement", measurement.as_str()),
            ("models", &models),
        ];
        all.extend(more);
        place.write("policy.toml", policy(&all).as_bytes());
        status(
            &place,
            &["--folder", "collateral", "--policy", "policy.toml"],
        )
    };
    let age = 9 * DAY;
    let (run, value) = with(&[("collateral_age_seconds", &format!("{{ expect = {age} }}"))]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(value["check"], "snp.collateral.age");
    let from = parse_rfc3339(value["refused_from"].as_str().unwrap()).unwrap();
    assert!(from.abs_diff(machine.crl.this_update + age) <= 1);
    assert_eq!(value["platform"]["product"], "Genoa");
    // A waiver that ends.
    let until = &rfc3339(now() + 3 * DAY)[..10];
    let waiver = format!("{{ waive = \"later\", until = \"{until}\" }}");
    let (_, value) = with(&[("snp.vmpl", &waiver)]);
    assert_eq!(value["check"], "snp.vmpl");
    let from = value["refused_from"].as_str().unwrap();
    let from = parse_rfc3339(from).unwrap();
    assert_eq!(rfc3339(from - 1), format!("{until}T23:59:59Z"));
    // And one that refuses now says so, as `appraise` would.
    let (run, value) = with(&[("snp.product", "{ expect = [\"Turin\"] }")]);
    assert_eq!((run.code, &value["check"]), (4, &"snp.product".into()));
}

#[test]
fn collateral_that_is_missing_is_said() {
    let place = Place::snp(&snp_machine());
    let (run, value) = status(&place, &[]);
    assert_eq!((run.code, &value["check"]), (5, &"snp.collateral".into()));
    let (run, _) = status(&place, &["--folder", "nowhere"]);
    assert_eq!(run.code, 5);
    let place = Place::tdx(&tdx_machine());
    let (run, _) = status(&place, &[]);
    assert_eq!(run.code, 5);
}

#[test]
fn tdx_ends_with_what_ends_first() {
    let mut machine = tdx_machine();
    machine.qe_identity.next_update = now() + 5 * DAY;
    let place = Place::tdx(&machine);
    assert_eq!(place.fetch(&[]).code, 0);
    let (run, value) = status(&place, &["--folder", "collateral"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(value["parts"][0]["name"], "identity of the quoting enclave");
    let from = parse_rfc3339(value["refused_from"].as_str().unwrap()).unwrap();
    assert!(from.abs_diff(machine.qe_identity.next_update) <= 1);
    assert_eq!(
        status(&place, &["--folder", "collateral", "--within", "6"])
            .0
            .code,
        5
    );
}

/// The strict TDX template with this machine's measurements.
fn tdx_policy(machine: &touchstone_testkit::machine::TdxMachine, more: &[(&str, &str)]) -> String {
    let report = &machine.report.report;
    let hex = |bytes: &[u8]| format!("{{ expect = [\"{}\"] }}", hex::encode(bytes));
    let models = hex(&[0xab; 32]);
    let [rtmr0, rtmr1, rtmr2, _] = report.rtmr.map(|rtmr| hex(&rtmr));
    let mrtd = hex(&report.mr_td);
    let mut all = vec![
        ("models", models.as_str()),
        ("tdx.mrtd", &mrtd),
        ("tdx.rtmr0", &rtmr0),
        ("tdx.rtmr1", &rtmr1),
        ("tdx.rtmr2", &rtmr2),
    ];
    all.extend(more);
    let template = touchstone(&["policy", "init", "--tee", "tdx"]).stdout;
    touchstone_testkit::policy::edit(&template, &all)
}

/// Under a policy: what ends first of Intel's pieces, of the policy's own rule of age and of its grace; to the second.
#[test]
fn tdx_under_a_policy_is_refused_to_the_second() {
    let mut machine = tdx_machine();
    let place = Place::tdx(&machine);
    assert_eq!(place.fetch(&[]).code, 0);
    let under = |place: &Place, text: &str, more: &[&str]| {
        place.write("policy.toml", text.as_bytes());
        let args = ["--folder", "collateral", "--policy", "policy.toml"];
        status(place, &[&args, more].concat())
    };
    let from = |value: &Value| parse_rfc3339(value["refused_from"].as_str().unwrap()).unwrap();
    let policy = |more: &[(&str, &str)]| tdx_policy(&machine, more);

    // What Intel signed ends before it is 90 days old.
    let (run, value) = under(
        &place,
        &policy(&[("collateral_age_seconds", "{ expect = 7776000 }")]),
        &[],
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(value["by_policy"], true);
    assert_eq!(value["platform"]["tee"], "tdx");
    let ends = [
        machine.tcb_info.next_update,
        machine.qe_identity.next_update,
        machine.pck_crl.next_update.unwrap(),
        machine.root_crl.next_update.unwrap(),
    ];
    assert_eq!(from(&value), *ends.iter().min().unwrap(), "{value}");

    // The policy's rule of age, about what is oldest of the pieces that it asks.
    let (run, value) = under(
        &place,
        &policy(&[("collateral_age_seconds", "{ expect = 864000 }")]),
        &[],
    );
    assert_eq!(
        (run.code, &value["check"]),
        (0, &"tdx.collateral.age".into())
    );
    let oldest = [
        machine.tcb_info.issue_date,
        machine.qe_identity.issue_date,
        machine.pck_crl.this_update,
    ];
    let day = oldest.iter().min().unwrap() + 864_000 + 1;
    assert_eq!(from(&value), day);
    let words = format!("will be refused on {} because", rfc3339(day));
    assert!(run.stderr.contains(&words), "{}", run.stderr);
    let text = policy(&[("collateral_age_seconds", "{ expect = 864000 }")]);
    for (at, exit) in [(day - 1, 0), (day, 5)] {
        let (run, value) = under(&place, &text, &["--at", &rfc3339(at)]);
        assert_eq!(
            (run.code, &value["check"]),
            (exit, &"tdx.collateral.age".into())
        );
    }

    // Out of date, and tolerated until a day.
    for level in &mut machine.tcb_info.tcb_levels {
        level.tcb_status = "OutOfDate".into();
    }
    let place = Place::tdx(&machine);
    assert_eq!(place.fetch(&[]).code, 0);
    let last = &rfc3339(now() + 3 * DAY)[..10];
    let grace = format!("{{ expect = {last:?} }}");
    let tolerant = [
        (
            "tdx.tcb.status",
            "{ expect = [\"UpToDate\", \"OutOfDate\"] }",
        ),
        ("tdx.tcb.advisories", "{ waive = \"a test\" }"),
        ("tdx.tcb.grace", &grace),
    ];
    let (run, value) = under(&place, &tdx_policy(&machine, &tolerant), &[]);
    assert_eq!(
        (run.code, &value["check"]),
        (0, &"tdx.tcb.grace".into()),
        "{}",
        run.stderr
    );
    assert_eq!(rfc3339(from(&value) - 1), format!("{last}T23:59:59Z"));
    // Without the grace it is refused now, and as a matter of policy.
    let (run, value) = under(&place, &tdx_policy(&machine, &tolerant[..2]), &[]);
    assert_eq!((run.code, &value["check"]), (4, &"tdx.tcb.grace".into()));
}
