//! What a newcomer meets: help, errors that name file, field, found and expected, and exit 1.

mod support;

use support::{policy, touchstone, touchstone_in};

const COMMANDS: &[&[&str]] = &[
    &["ask"],
    &["proxy"],
    &["check"],
    &["appraise"],
    &["explain"],
    &["regrade"],
    &["advisories"],
    &["advisories", "sign"],
    &["evidence"],
    &["evidence", "sev-snp"],
    &["evidence", "tdx"],
    &["show"],
    &["prove-refusal"],
    &["policy"],
    &["policy", "init"],
    &["policy", "lint"],
    &["policy", "diff"],
    &["collateral"],
    &["collateral", "fetch"],
    &["collateral", "serve"],
    &["collateral", "status"],
    &["manifest"],
    &["manifest", "new"],
    &["manifest", "add"],
    &["manifest", "add-model"],
    &["manifest", "key"],
    &["manifest", "sign"],
    &["manifest", "verify"],
    &["manifest", "diff"],
    &["model"],
    &["model", "digest"],
    &["model", "verify"],
    &["measure"],
    &["measure", "snp"],
    &["measure", "tdx"],
];

#[test]
fn every_command_has_help_with_an_example() {
    for command in COMMANDS.iter().copied() {
        let run = touchstone(&[command, &["--help"]].concat());
        assert_eq!(run.code, 0, "{command:?}");
        assert!(run.stdout.contains("Example"), "{command:?}");
        assert!(run.stdout.contains(&format!("touchstone {}", command[0])));
        assert!(!run.stdout.contains('\u{1b}'), "no colour in a pipe");
        // Those that serve log instead; groups of commands do nothing.
        let works = !COMMANDS
            .iter()
            .any(|other| other.len() > command.len() && other.starts_with(command));
        if works && !matches!(command, ["proxy"] | ["collateral", "serve"]) {
            assert!(run.stdout.contains("--json"), "{command:?}");
        }
    }
    let whole = touchstone(&["--help"]);
    assert_eq!(whole.code, 0);
    for command in COMMANDS.iter().copied() {
        assert!(whole.stdout.contains(command[0]));
    }
    assert_eq!(touchstone(&["--version"]).code, 0);
}

#[test]
fn examples_in_the_help_are_understood() {
    // Every option in an example is an option of that command.
    for command in COMMANDS.iter().copied() {
        let help = touchstone(&[command, &["--help"]].concat()).stdout;
        let (options, examples) = help.split_once("Example").expect("an example");
        let own = format!("touchstone {}", command.join(" "));
        // A command of commands has examples of theirs.
        let group = COMMANDS
            .iter()
            .any(|other| other.len() > command.len() && other.starts_with(command));
        let text = examples.replace('\n', " ");
        for example in text
            .split("touchstone ")
            .skip(1)
            .map(|e| format!("touchstone {e}"))
        {
            if group || !example.starts_with(&own) {
                continue;
            }
            for word in example.split_whitespace().filter(|w| w.starts_with("--")) {
                assert!(
                    options.contains(word),
                    "{word} in the example of {command:?}"
                );
            }
        }
    }
}

#[test]
fn usage_errors_exit_1_also_as_json() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["chekc"], "chekc"),
        (&["check"], "--policy"),
        (&["check", "x"], "--policy"),
        (&["check", "x", "--policy", "p", "--unknown"], "--unknown"),
        (
            &["check", "x", "--policy", "p", "--at", "yesterday"],
            "RFC 3339",
        ),
        (&["check", "x", "--policy", "p", "--nonce", "xyz"], "hex"),
        (
            &["check", "x", "--policy", "p", "--require", "loged"],
            "loged",
        ),
        (
            &["check", "x", "--policy", "p", "--status", "99"],
            "100..=599",
        ),
        (
            &["check", "x", "--policy", "p", "--input", "x.npy"],
            "NAME=FILE.npy",
        ),
        (
            &["check", "x", "--policy", "p", "--expect-simulated"],
            "--trust-simulated-root",
        ),
        (
            &["check", "x", "--policy", "no-such-policy.toml"],
            "no-such-policy.toml",
        ),
        (&["appraise", "x"], "--policy"),
        (
            &["appraise", "x", "--policy", "p", "--report-data", "00"],
            "128 hex digits",
        ),
        (
            &[
                "ask",
                "http://127.0.0.1:1",
                "m",
                "-o",
                "d",
                "--input",
                "x=y.npy",
            ],
            "--policy",
        ),
        (&["evidence", "tdx"], "tdx"),
        (&["evidence", "sev-snp"], "--report"),
        (&["policy", "init", "--tee", "sgx"], "sev-snp, tdx"),
        (&["policy", "init", "--profile", "none"], "explore"),
        (&["show"], "FILE"),
        (&["show", "no-such-file"], "no-such-file"),
    ];
    for (args, says) in cases {
        let run = touchstone(args);
        assert_eq!(run.code, 1, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(says), "{args:?}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{args:?}: {}", run.stdout);
        let run = touchstone(&[*args, &["--json"]].concat());
        let verdict = run.verdict();
        assert_eq!(verdict["verdict"], "usage", "{args:?}");
        assert!(verdict["at"].is_null() && verdict["class"].is_null());
    }
}

#[test]
fn policies_that_do_not_stand_say_which_key() {
    let folder = tempfile::tempdir().unwrap();
    let good = policy(&[]);
    std::fs::write(folder.path().join("bundle.json"), "{}\n").unwrap();
    let judge = |text: &str| {
        std::fs::write(folder.path().join("p.toml"), text).unwrap();
        touchstone_in(
            folder.path(),
            &[
                "check",
                "bundle.json",
                "--receipt-only",
                "--policy",
                "p.toml",
                "--json",
            ],
        )
    };
    // The twin stands: what is wrong then is the bundle.
    judge(&good).refused(2, "bundle.format");
    let without_line = |key: &str| -> String {
        good.lines()
            .filter(|l| !l.starts_with(key))
            .map(|l| l.to_owned() + "\n")
            .collect()
    };
    for (text, says) in [
        (without_line("\"snp.policy.debug\""), "snp.policy.debug"),
        (without_line("nonce"), "nonce"),
        (good.replace("\"snp.vmpl\"", "\"snp.vmpi\""), "snp.vm"),
        (
            good.replace("touchstone/policy/1", "touchstone/policy/2"),
            "touchstone/policy/2",
        ),
        (
            good.replace("\"snp.vmpl\" = ", "\"snp.vmpl\" = 0 #"),
            "snp.vmpl",
        ),
        ("no toml".to_owned(), "p.toml"),
        (String::new(), "p.toml"),
    ] {
        let run = judge(&text);
        let verdict = run.refused(1, "policy.file");
        assert!(
            run.stderr.contains(says) && run.stderr.contains("p.toml"),
            "{says}: {}",
            run.stderr
        );
        assert!(
            verdict["checks"][0]["reason"]
                .as_str()
                .unwrap()
                .contains(says)
        );
    }
}

#[test]
fn a_policy_is_started_once() {
    let folder = tempfile::tempdir().unwrap();
    let init = || {
        touchstone_in(
            folder.path(),
            &["policy", "init", "--tee", "sev-snp", "-o", "p.toml"],
        )
    };
    assert_eq!(init().code, 0);
    let text = std::fs::read_to_string(folder.path().join("p.toml")).unwrap();
    assert_eq!(text, policy(&[]));
    std::fs::write(folder.path().join("p.toml"), "mine").unwrap();
    let again = init();
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("p.toml") && again.stderr.contains("not overwritten"));
    assert_eq!(
        std::fs::read_to_string(folder.path().join("p.toml")).unwrap(),
        "mine"
    );
    // An empty file holds nothing that could be lost.
    std::fs::write(folder.path().join("p.toml"), "").unwrap();
    assert_eq!(init().code, 0);
}

/// What a command made, as one object on stdout and nothing beside it.
#[test]
fn what_is_made_is_told_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let made = |args: &[&str]| -> serde_json::Value {
        let run = touchstone_in(folder.path(), args);
        assert_eq!(
            (run.code, run.stdout.lines().count()),
            (0, 1),
            "{}",
            run.stderr
        );
        let value: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(value["exit"], 0);
        value
    };
    let value = made(&["policy", "init", "--tee", "tdx", "--json"]);
    assert_eq!(
        (&value["profile"], &value["wrote"]),
        (&"strict".into(), &().into())
    );
    let text = touchstone(&["policy", "init", "--tee", "tdx"]).stdout;
    assert_eq!(value["policy"], text);
    let fill_in = value["fill_in"].as_array().unwrap();
    assert!(
        fill_in.contains(&"platform[1].tdx.mrtd".into()),
        "{fill_in:?}"
    );
    let value = made(&[
        "policy",
        "init",
        "--profile",
        "serve",
        "--json",
        "-o",
        "p.toml",
    ]);
    assert_eq!(
        (&value["profile"], &value["wrote"]),
        (&"serve/1".into(), &"p.toml".into())
    );
    assert!(folder.path().join("p.toml").exists());

    let notices =
        r#"{"v":"touchstone/advisories/1","version":3,"issued_at":1790000000,"notices":[]}"#;
    std::fs::write(folder.path().join("notices.json"), notices).unwrap();
    std::fs::write(folder.path().join("seed"), "07".repeat(32)).unwrap();
    let sign = [
        "advisories",
        "sign",
        "notices.json",
        "--key",
        "seed",
        "--name",
        "a.example",
    ];
    let plain = touchstone_in(folder.path(), &sign);
    let value = made(&[&sign[..], &["--json"]].concat());
    assert_eq!(
        (&value["version"], &value["list"]),
        (&3.into(), &plain.stdout.as_str().into())
    );
    let key = value["verifier_key"].as_str().unwrap();
    assert!(
        plain.stderr.contains(key) && key.starts_with("a.example+"),
        "{key}"
    );
    let value = made(&[&sign[..], &["--json", "-o", "list.txt"]].concat());
    assert_eq!(
        (&value["wrote"], &value["list"]),
        (&"list.txt".into(), &().into())
    );

    let machine = touchstone_testkit::machine::TdxMachine::new(
        4,
        touchstone_testkit::tdx::TdReport::v1_0(),
        1_790_000_000,
    );
    std::fs::write(folder.path().join("quote"), machine.quote([7; 64])).unwrap();
    let value = made(&[
        "evidence", "tdx", "--quote", "quote", "--json", "-o", "e.json",
    ]);
    assert_eq!(
        (&value["wrote"], &value["tee"]),
        (&"e.json".into(), &"tdx".into())
    );
    assert!(!value["missing"].as_array().unwrap().is_empty());
}

#[test]
fn roots_that_are_none_are_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.toml"), policy(&[])).unwrap();
    std::fs::write(folder.path().join("bundle.json"), "{}\n").unwrap();
    let judge = || {
        let args = [
            "check",
            "bundle.json",
            "--receipt-only",
            "--policy",
            "p.toml",
            "--trust-simulated-root",
            "root.pem",
            "--json",
        ];
        touchstone_in(folder.path(), &args)
    };
    judge().refused(1, "root.simulated");
    std::fs::write(folder.path().join("root.pem"), "no PEM").unwrap();
    judge().refused(1, "root.simulated");
    let now = 1_790_000_000;
    let pki = touchstone_testkit::amd::Pki::new(touchstone_testkit::amd::Product::Genoa, now);
    std::fs::write(folder.path().join("root.pem"), pki.ark_pem()).unwrap();
    judge().refused(2, "bundle.format");
}
