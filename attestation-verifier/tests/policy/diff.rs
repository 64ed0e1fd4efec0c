//! Comparison of policies: as documented, and as verdicts bear it out.

use attestation_verifier::policy::{Relation, diff, template};
use attestation_verifier::{At, Policy, Roots, appraise};
use touchstone_formats::Purpose;
use touchstone_formats::evidence::{Evidence, Tee};
use touchstone_testkit::amd::Product;
use touchstone_testkit::machine::Machine;
use touchstone_testkit::mint::World;
use touchstone_testkit::policy::edit;

use crate::{AT, TEES, keys, parse, with};
use Relation::{Incomparable, Looser, Same, Stricter};

/// How the second stands to the first; and the first to the second is the same, turned round.
#[track_caller]
fn relation(a: &Policy, b: &Policy) -> Relation {
    let (there, back) = (diff(a, b, AT).relation, diff(b, a, AT).relation);
    let turned = match there {
        Stricter => Looser,
        Looser => Stricter,
        other => other,
    };
    assert_eq!(back, turned);
    there
}

#[test]
fn whatever_is_waived_is_looser() {
    for tee in TEES {
        let text = template(tee);
        let strict = parse(&text);
        assert_eq!(diff(&strict, &strict, AT).differences, []);
        let mut seen = 0;
        for key in keys(&text) {
            let waive = |until: &str| {
                edit(
                    &text,
                    &[(&key, &format!("{{ waive = \"a test\"{until} }}"))],
                )
            };
            let waived = parse(&waive(", until = \"2030-01-01\""));
            let found = diff(&strict, &waived, AT);
            let [difference] = found.differences.as_slice() else {
                panic!("{key}: {found:?}");
            };
            assert!(difference.key.ends_with(&key), "{key}: {}", difference.key);
            // What the template waives itself, without end, is stricter with an end.
            let value = text.lines().find_map(|line| {
                let (name, value) = line.split_once(" = ")?;
                (name.trim_matches('"') == key).then_some(value)
            });
            let expected = if value.is_some_and(|value| value.starts_with("{ waive")) {
                Stricter
            } else {
                Looser
            };
            assert_eq!(found.relation, expected, "{key}");
            assert_eq!(relation(&strict, &waived), expected, "{key}");
            // A waiver that has ended accepts nothing.
            let ended = parse(&waive(", until = \"2020-01-01\""));
            assert_eq!(relation(&waived, &ended), Stricter, "{key}");
            seen += 1;
        }
        assert!(seen > 35, "{seen} rules of {tee}");
    }
}

#[test]
fn values_compare_as_documented() {
    let hex = |bytes: usize, digit: &str| digit.repeat(bytes * 2);
    let list = |items: &[&String]| format!("{{ expect = {items:?} }}");
    let (a, b) = (hex(48, "a"), hex(48, "b"));
    let floor = |genoa: &str| format!("{{ expect = {{ {genoa} }} }}");
    let genoa = |snp: u8, microcode: u8| {
        format!("Genoa = {{ bootloader = 0, tee = 0, snp = {snp}, microcode = {microcode} }}")
    };
    let bergamo = "Bergamo = { bootloader = 0, tee = 0, snp = 23, microcode = 84 }";
    let snp = |key: &'static str, first: String, second: String, expected| {
        (Tee::SevSnp, key, first, second, expected)
    };
    let tdx = |key: &'static str, first: &str, second: &str, expected| {
        let value = |text: &str| format!("{{ expect = {text} }}");
        (Tee::Tdx, key, value(first), value(second), expected)
    };
    for (tee, key, first, second, expected) in [
        snp("snp.measurement", list(&[&a]), list(&[&a, &b]), Looser),
        snp("snp.measurement", list(&[&a]), list(&[&b]), Incomparable),
        snp("snp.measurement", list(&[]), list(&[&b]), Looser),
        snp("snp.measurement", list(&[&a, &b]), list(&[&b, &a]), Same),
        snp(
            "snp.version",
            "{ expect = [3, 5] }".into(),
            "{ expect = 5 }".into(),
            Stricter,
        ),
        snp(
            "snp.guest_svn",
            "{ expect = 1 }".into(),
            "{ expect = 2 }".into(),
            Stricter,
        ),
        snp(
            "snp.policy.debug",
            "{ expect = false }".into(),
            "{ expect = true }".into(),
            Looser,
        ),
        snp(
            "snp.platform.ecc",
            "{ expect = false }".into(),
            "{ expect = true }".into(),
            Stricter,
        ),
        snp(
            "snp.platform.tsme",
            "{ expect = false }".into(),
            "{ expect = true }".into(),
            Incomparable,
        ),
        snp(
            "snp.mitigation.launch",
            "{ expect = \"0x3\" }".into(),
            "{ expect = \"0x1\" }".into(),
            Looser,
        ),
        snp(
            "snp.mitigation.launch",
            "{ expect = \"0x2\" }".into(),
            "{ expect = \"0x1\" }".into(),
            Incomparable,
        ),
        snp(
            "snp.tcb.launch",
            floor(&genoa(23, 84)),
            floor(&genoa(23, 85)),
            Stricter,
        ),
        snp(
            "snp.tcb.launch",
            floor(&genoa(23, 84)),
            floor(&genoa(24, 83)),
            Incomparable,
        ),
        // A variant without a floor of its own has its product's.
        snp(
            "snp.tcb.launch",
            floor(&genoa(23, 84)),
            floor(&format!("{}, {bergamo}", genoa(23, 84))),
            Same,
        ),
        snp(
            "snp.tcb.launch",
            floor(&genoa(23, 84)),
            floor(bergamo),
            Stricter,
        ),
        snp(
            "snp.vlek.csp",
            "{ expect = [] }".into(),
            "{ expect = \"A\" }".into(),
            Looser,
        ),
        snp(
            "require",
            "\"signed\"".into(),
            "\"logged\"".into(),
            Stricter,
        ),
        snp(
            "require",
            "\"quoted\"".into(),
            "\"logged\"".into(),
            Incomparable,
        ),
        snp(
            "fresh_seconds",
            "{ expect = 60 }".into(),
            "{ expect = 61 }".into(),
            Looser,
        ),
        snp(
            "binding",
            "{ expect = \"tls-exporter\" }".into(),
            "{ expect = [\"none\", \"tls-exporter\"] }".into(),
            Looser,
        ),
        snp(
            "name",
            "{ expect = \"a\" }".into(),
            "{ waive = \"x\" }".into(),
            Looser,
        ),
        snp(
            "name",
            "{ waive = \"x\", until = \"2030-01-01\" }".into(),
            "{ waive = \"y\", until = \"2029-12-31\" }".into(),
            Stricter,
        ),
        tdx(
            "tdx.tcb.status",
            "[\"UpToDate\"]",
            "[\"UpToDate\", \"OutOfDate\"]",
            Looser,
        ),
        tdx("tdx.tcb.advisories", "[]", "[\"INTEL-SA-00960\"]", Looser),
        tdx("tdx.tcb.grace", "\"none\"", "\"2027-01-01\"", Looser),
        tdx(
            "tdx.tcb.grace",
            "\"2027-01-02\"",
            "\"2027-01-01\"",
            Stricter,
        ),
        tdx("tdx.tcb.evaluation_number", "17", "18", Stricter),
        tdx("tdx.attributes.sept_ve_disable", "true", "false", Looser),
        tdx("tdx.attributes.pks", "true", "false", Incomparable),
        tdx("tdx.xfam", "[\"0xe7\"]", "[\"0xe7\", \"0x602e7\"]", Looser),
        // Every name has to occur.
        tdx(
            "tdx.rtmr3.events",
            "[\"app-id=00\"]",
            "[\"app-id=*\"]",
            Looser,
        ),
        tdx(
            "tdx.rtmr3.events",
            "[\"app-id=00\"]",
            "[\"app-id=00\", \"app-id=01\"]",
            Looser,
        ),
        tdx(
            "tdx.rtmr3.events",
            "[\"app-id=00\"]",
            "[\"app-id=00\", \"key=01\"]",
            Incomparable,
        ),
        tdx("tdx.rtmr3.events", "[]", "[\"key=01\"]", Incomparable),
    ] {
        let policy = |value: &str| with(tee, &[(key, value)]);
        let (x, y) = (policy(&first), policy(&second));
        assert_eq!(relation(&x, &y), expected, "{key}: {first} and {second}");
        let found = diff(&x, &y, AT);
        let said: Vec<&str> = found.differences.iter().map(|d| d.key.as_str()).collect();
        assert!(said.iter().all(|said| said.ends_with(key)), "{said:?}");
    }
}

#[test]
fn stricter_here_and_looser_there_is_incomparable() {
    let strict = with(Tee::SevSnp, &[]);
    let mixed = with(
        Tee::SevSnp,
        &[
            ("fresh_seconds", "{ expect = 60 }"),
            ("configs", "{ expect = [] }"),
            ("snp.vmpl", "{ expect = [0, 1] }"),
        ],
    );
    assert_eq!(relation(&strict, &mixed), Incomparable);
    let found = diff(&strict, &mixed, AT);
    let said: Vec<(&str, Relation)> = found
        .differences
        .iter()
        .map(|d| (d.key.as_str(), d.relation))
        .collect();
    assert_eq!(
        said,
        [
            ("answer.fresh_seconds", Stricter),
            ("answer.configs", Stricter),
            ("snp.vmpl", Looser)
        ]
    );
}

/// A policy without `[session]` behaves like one that says so.
#[test]
fn connections_that_are_not_spoken_of_are_bound() {
    let text = template(Tee::SevSnp);
    let (head, rest) = text.split_once("[session]").unwrap();
    let (_, platforms) = rest.split_once("[[platform]]").unwrap();
    let without = parse(&format!("{head}[[platform]]{platforms}"));
    assert_eq!(relation(&parse(&text), &without), Same);
    let open = with(Tee::SevSnp, &[("binding", "{ waive = \"x\" }")]);
    assert_eq!(relation(&without, &open), Looser);
}

#[test]
fn evidence_has_to_satisfy_one_platform() {
    let platform = |changes: &[(&str, &str)]| {
        let text = edit(&template(Tee::SevSnp), changes);
        let at = text.find("[[platform]]").unwrap();
        (text[..at].to_owned(), text[at..].to_owned())
    };
    let (head, plain) = platform(&[]);
    let (_, one) = platform(&[("snp.guest_svn", "{ expect = 1 }")]);
    let (_, two) = platform(&[("snp.guest_svn", "{ expect = 2 }")]);
    let (_, other) = platform(&[
        ("snp.vmpl", "{ expect = 1 }"),
        ("snp.version", "{ expect = 5 }"),
    ]);
    let tdx = template(Tee::Tdx);
    let tdx = tdx[tdx.find("[[platform]]").unwrap()..].to_owned();
    let of = |platforms: &[&String]| {
        let list: Vec<&str> = platforms.iter().map(|p| p.as_str()).collect();
        parse(&format!("{head}{}", list.join("\n")))
    };
    for (first, second, expected, differences) in [
        (&[&plain, &tdx][..], &[&tdx, &plain][..], Same, 0),
        (&[&plain], &[&plain, &tdx], Looser, 1),
        (&[&plain, &tdx], &[&tdx], Stricter, 1),
        (&[&plain], &[&tdx], Incomparable, 2),
        (&[&one], &[&two], Stricter, 1),
        // What the second adds lies within what it already accepts.
        (&[&one], &[&one, &two], Same, 1),
        (&[&one, &two], &[&two, &other], Incomparable, 3),
    ] {
        let (a, b) = (of(first), of(second));
        assert_eq!(relation(&a, &b), expected);
        let found = diff(&a, &b, AT);
        assert_eq!(found.differences.len(), differences, "{found:#?}");
    }
}

/// What a stricter policy accepts a looser one accepts: for reports of many kinds, judged.
#[test]
fn verdicts_bear_it_out() {
    let base = Machine::new(Product::Genoa, 5, AT);
    let measurement = |byte: u8| hex::encode([byte; 48]);
    let expect = |list: &[String]| format!("{{ expect = {list:?} }}");
    let reports: Vec<(Evidence, Roots)> = (0..12)
        .map(|n| {
            let mut machine = base.clone();
            machine.report.measurement = [n % 3; 48];
            machine.report.vmpl = u32::from(n % 2);
            machine.report.guest_svn = u32::from(n / 4);
            let roots = Roots::pinned()
                .with_simulated_pem(machine.root_pem().as_bytes())
                .unwrap();
            let world = World::on(machine, 1, AT);
            let bind = touchstone_formats::report_data::bind_boot();
            let evidence = Evidence {
                purpose: None,
                ..world.evidence(Purpose::Boot, None, bind)
            };
            (evidence, roots)
        })
        .collect();
    let at = At {
        time: AT,
        asserted: true,
    };
    let mut policies = Vec::new();
    for measurements in [
        expect(&[]),
        expect(&[measurement(0)]),
        expect(&[measurement(0), measurement(1)]),
        "{ waive = \"a test\" }".to_owned(),
    ] {
        for vmpl in ["{ expect = 0 }", "{ expect = [0, 1] }"] {
            for svn in ["{ expect = 0 }", "{ expect = 2 }"] {
                let changes = [
                    ("snp.measurement", measurements.as_str()),
                    ("snp.vmpl", vmpl),
                    ("snp.guest_svn", svn),
                ];
                policies.push(with(Tee::SevSnp, &changes));
            }
        }
    }
    let accepted: Vec<Vec<bool>> = policies
        .iter()
        .map(|policy| {
            let holds = reports.iter().map(|(evidence, roots)| {
                appraise(&evidence.to_file(), policy, roots, None, at).exit() == 6
            });
            holds.collect()
        })
        .collect();
    let mut seen = [0; 4];
    for (a, first) in policies.iter().zip(&accepted) {
        for (b, second) in policies.iter().zip(&accepted) {
            let within = |x: &[bool], y: &[bool]| x.iter().zip(y).all(|(x, y)| !x || *y);
            let (bears_out, place) = match relation(a, b) {
                Same => (first == second, 0),
                Stricter => (within(second, first), 1),
                Looser => (within(first, second), 2),
                Incomparable => (true, 3),
            };
            assert!(bears_out, "{first:?} {second:?}");
            seen[place] += 1;
        }
    }
    assert!(seen.iter().all(|n| *n > 10), "{seen:?}");
    let some = accepted.iter().flatten().filter(|a| **a).count();
    assert!((20..150).contains(&some), "{some} accepted");
}
