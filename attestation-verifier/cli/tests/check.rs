//! `check` as a person or a program runs it: folders, files, options, and every exit code.

mod support;

use support::{Kept, npy, policy_for, touchstone_in};
use touchstone_testkit::mint::{Exchange, World};

fn kept(exchange: Exchange) -> Kept {
    let world = World::new(1);
    let minted = world.mint(exchange).finish();
    Kept::new(world, &minted)
}

#[test]
fn every_exit_code() {
    let kept = kept(Exchange::json(1));
    let verdict = kept.check(&["--expect-simulated"]).verdict();
    assert_eq!(verdict["exit"], 0);
    assert_eq!(verdict["achieved"], serde_json::json!(["logged", "signed"]));
    assert_eq!(
        verdict["covers"],
        serde_json::json!(["request", "response", "nonce"])
    );
    assert_eq!(verdict["time_vouched_by"], "caller");
    assert_eq!(kept.check(&[]).verdict()["exit"], 6);
    kept.check(&["--nonce", &"00".repeat(32)])
        .refused(4, "receipt.nonce");
    kept.check(&["--require", "quoted"])
        .refused(4, "guarantees.required");

    let body = kept.path("answer/response.bin");
    let honest = std::fs::read(&body).unwrap();
    let mut lie = honest.clone();
    lie[20] ^= 1;
    std::fs::write(&body, lie).unwrap();
    kept.check(&[]).refused(3, "compare.response");
    std::fs::write(&body, honest).unwrap();

    let bundle = kept.path("answer/bundle.json");
    let honest = std::fs::read(&bundle).unwrap();
    std::fs::write(&bundle, [&honest[..], b"\n"].concat()).unwrap();
    kept.check(&[]).refused(2, "bundle.format");
    std::fs::write(&bundle, &honest).unwrap();

    let late = [
        "check",
        "answer",
        "--json",
        "--policy",
        "policy.toml",
        "--trust-simulated-root",
        "root.pem",
    ];
    let late = [&late[..], &["--at", "2027-09-21T14:13:20Z"]].concat();
    assert_eq!(
        touchstone_in(kept.folder.path(), &late).verdict()["exit"],
        5
    );
    let bare = [
        "check",
        "answer",
        "--json",
        "--policy",
        "policy.toml",
        "--at",
        &kept.at,
    ];
    touchstone_in(kept.folder.path(), &bare).refused(3, "snp.chain.root");
    kept.check(&["--at", "soon"]).refused(1, "usage");
    assert_eq!(
        kept.check(&[]).verdict()["exit"],
        6,
        "nothing was left changed"
    );
}

#[test]
fn words_go_to_stdout_without_json() {
    let kept = kept(Exchange::json(1));
    let args = [
        "check",
        "answer",
        "--policy",
        "policy.toml",
        "--trust-simulated-root",
        "root.pem",
        "--at",
        &kept.at,
    ];
    let run = touchstone_in(kept.folder.path(), &args);
    assert_eq!(run.code, 6);
    assert!(
        run.stdout.contains("HOLDS") && run.stdout.contains("SIMULATED"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("time asserted by you"));
    assert!(!run.stdout.contains('\u{1b}') && run.stderr.is_empty());
    let run = touchstone_in(
        kept.folder.path(),
        &[&args[..], &["--nonce", "00"]].concat(),
    );
    assert!(run.stdout.contains("receipt.nonce"), "{}", run.stdout);
}

#[test]
fn a_file_that_the_folder_lacks_is_named() {
    for name in [
        "bundle.json",
        "request.bin",
        "response.bin",
        "expect.json",
        "response.json",
    ] {
        let kept = kept(Exchange::json(1));
        assert_eq!(kept.check(&[]).code, 6);
        std::fs::remove_file(kept.path("answer").join(name)).unwrap();
        let run = kept.check(&[]);
        run.refused(1, "usage");
        assert!(run.stderr.contains(name), "{name}: {}", run.stderr);
    }
}

#[test]
fn records_that_are_not_written_as_ours_are_malformed() {
    for (name, id) in [
        ("expect.json", "expect.format"),
        ("response.json", "response.format"),
    ] {
        let kept = kept(Exchange::json(1));
        let path = kept.path("answer").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("/1\"", "/2\"")).unwrap();
        kept.check(&[]).refused(2, id);
        std::fs::write(&path, text).unwrap();
        assert_eq!(kept.check(&[]).code, 6);
    }
}

#[test]
fn options_stand_in_for_files_of_the_folder() {
    for exchange in [Exchange::json(1), Exchange::binary(2)] {
        let kept = kept(exchange);
        let answer = kept.path("answer");
        for (name, option) in [
            ("request.bin", "--request"),
            ("response.bin", "--response"),
            ("expect.json", "--expect"),
        ] {
            std::fs::rename(answer.join(name), kept.path(name)).unwrap();
            assert_eq!(kept.check(&[]).code, 1);
            assert_eq!(kept.check(&[option, name]).code, 6, "{option}");
            std::fs::rename(kept.path(name), answer.join(name)).unwrap();
        }
        // The record of what was sent holds also for a request given otherwise.
        std::fs::write(kept.path("other.bin"), "{}").unwrap();
        kept.check(&["--request", "other.bin"])
            .refused(3, "compare.request");
        kept.check(&["--method", "PUT"])
            .refused(3, "compare.request");
        kept.check(&["--path", "/v2/models/wine/infer"])
            .refused(3, "compare.request");
        kept.check(&["--status", "201"])
            .refused(3, "compare.response");
    }
}

#[test]
fn a_bundle_file_with_all_that_is_held_against_it() {
    for exchange in [Exchange::json(1), Exchange::binary(2)] {
        let (target, nonce) = (
            exchange.target.clone(),
            hex::encode(exchange.nonce.clone().unwrap()),
        );
        let lengths = (
            exchange.request_header_length,
            exchange.response_header_length,
        );
        let kept = kept(exchange);
        let run = |without: &[&str]| {
            let length = |n: Option<u64>| n.map(|n| n.to_string());
            let (request_length, response_length) = (length(lengths.0), length(lengths.1));
            let mut options = vec![
                ("--request", "answer/request.bin"),
                ("--method", "POST"),
                ("--path", &target),
                ("--response", "answer/response.bin"),
                ("--status", "200"),
                ("--nonce", &nonce),
            ];
            options.extend(request_length.as_deref().map(|n| ("--header-length", n)));
            options.extend(
                response_length
                    .as_deref()
                    .map(|n| ("--response-header-length", n)),
            );
            let mut args = vec![
                "check",
                "answer/bundle.json",
                "--json",
                "--policy",
                "policy.toml",
            ];
            args.extend(["--trust-simulated-root", "root.pem", "--at", &kept.at]);
            for (option, value) in options
                .iter()
                .filter(|(option, _)| !without.contains(option))
            {
                args.extend([option, value]);
            }
            touchstone_in(kept.folder.path(), &args)
        };
        assert_eq!(run(&[]).verdict()["exit"], 6);
        run(&["--nonce"]).refused(4, "compare.coverage");
        run(&["--response", "--response-header-length"]).refused(4, "compare.coverage");
        run(&["--request", "--method", "--path", "--header-length"]).refused(4, "compare.coverage");
        // Half a description of a request or an answer is a mistake, not a comparison.
        run(&["--method"]).refused(1, "usage");
        run(&["--path"]).refused(1, "usage");
        run(&["--status"]).refused(1, "usage");
        run(&["--request"]).refused(1, "usage");
        if lengths.0.is_some() {
            run(&["--header-length"]).refused(3, "compare.request");
            run(&["--response-header-length"]).refused(3, "compare.response");
        }
        // With the caller's own record, which says method, target, length and nonce.
        let args = [
            "check",
            "answer/bundle.json",
            "--json",
            "--policy",
            "policy.toml",
            "--trust-simulated-root",
            "root.pem",
            "--at",
            &kept.at,
            "--expect",
            "answer/expect.json",
            "--input",
            "x=x.npy",
            "--output",
            "y=y.npy",
        ];
        std::fs::write(kept.path("x.npy"), npy(&[1, 4], &[0.1, 0.5, -2.25, 3.0e-7])).unwrap();
        std::fs::write(kept.path("y.npy"), npy(&[1, 2], &[0.75, 0.25])).unwrap();
        let verdict = touchstone_in(kept.folder.path(), &args).verdict();
        assert_eq!(verdict["exit"], 6);
        assert_eq!(
            verdict["covers"],
            serde_json::json!(["inputs", "outputs", "nonce"])
        );
        std::fs::write(kept.path("y.npy"), npy(&[1, 2], &[0.75, 0.5])).unwrap();
        touchstone_in(kept.folder.path(), &args).refused(3, "compare.outputs");
        std::fs::write(kept.path("y.npy"), "no array").unwrap();
        let run = touchstone_in(kept.folder.path(), &args);
        run.refused(1, "usage");
        assert!(run.stderr.contains("y.npy"), "{}", run.stderr);
    }
}

#[test]
fn the_receipt_alone() {
    let kept = kept(Exchange::json(1));
    for name in [
        "request.bin",
        "response.bin",
        "expect.json",
        "response.json",
    ] {
        std::fs::remove_file(kept.path("answer").join(name)).unwrap();
    }
    kept.check(&[]).refused(1, "usage");
    let verdict = kept.check(&["--receipt-only"]).verdict();
    assert_eq!(verdict["exit"], 6);
    assert_eq!(verdict["covers"], serde_json::json!([]));
}

/// What was demanded stays demanded when the receipt alone is judged.
#[test]
fn the_record_counts_for_the_receipt_alone() {
    let kept = kept(Exchange::json(1));
    assert_eq!(kept.check(&["--receipt-only"]).code, 6);
    let path = kept.path("answer/expect.json");
    let record = std::fs::read_to_string(&path).unwrap();
    let demanding = record.replace(r#"["logged","signed"]"#, r#"["logged","quoted","signed"]"#);
    assert_ne!(record, demanding);
    std::fs::write(&path, demanding).unwrap();
    kept.check(&["--receipt-only"])
        .refused(4, "guarantees.required");
}

#[test]
fn a_refusal_is_accepted_by_the_status_that_was_expected() {
    let kept = kept(Exchange::refusal(1, 503));
    kept.check(&[]).refused(4, "receipt.status");
    assert_eq!(kept.check(&["--status", "503"]).verdict()["exit"], 6);
    assert_eq!(
        kept.check(&["--status", "422"]).code,
        3,
        "another answer's status"
    );
}

#[test]
fn demands_of_record_option_and_policy_add_up() {
    let kept = kept(Exchange::json(1));
    let all = kept.check(&["--require", "signed"]).verdict();
    assert_eq!(all["required"], serde_json::json!(["logged", "signed"]));
    let strict = policy_for(&kept.world, &[("require", "[\"quoted\", \"signed\"]")]);
    std::fs::write(kept.path("policy.toml"), strict).unwrap();
    kept.check(&[]).refused(4, "guarantees.required");
}

/// The library refuses every bit (its own tests); here the command does, for a sample.
#[test]
fn flipped_bits_and_truncations_through_the_command() {
    let kept = kept(Exchange::json(1).requiring("logged quoted"));
    assert_eq!(kept.check(&[]).code, 6);
    let path = kept.path("answer/bundle.json");
    let honest = std::fs::read(&path).unwrap();
    let bits = honest.len() * 8;
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (kept, honest) = (&kept, &honest);
            scope.spawn(move || {
                let folder = format!("answer{worker}");
                let target = kept.path(&folder);
                std::fs::create_dir(&target).unwrap();
                for name in [
                    "request.bin",
                    "response.bin",
                    "expect.json",
                    "response.json",
                ] {
                    std::fs::copy(kept.path("answer").join(name), target.join(name)).unwrap();
                }
                for n in (worker..500).step_by(4) {
                    let mut lie = honest.clone();
                    if n % 10 == 0 {
                        lie.truncate(honest.len() * n / 500);
                    } else {
                        let bit = bits / 500 * n + n % 8;
                        lie[bit / 8] ^= 1 << (bit % 8);
                    }
                    std::fs::write(target.join("bundle.json"), lie).unwrap();
                    let args = [
                        "check",
                        &folder,
                        "--json",
                        "--policy",
                        "policy.toml",
                        "--trust-simulated-root",
                        "root.pem",
                        "--at",
                        &kept.at,
                        "--expect-simulated",
                    ];
                    let run = touchstone_in(kept.folder.path(), &args);
                    run.verdict();
                    assert!(
                        matches!(run.code, 2..=5),
                        "lie {n} was accepted: {}",
                        run.stderr
                    );
                }
            });
        }
    });
}

#[test]
fn show_knows_every_file_of_the_folder() {
    let kept = kept(Exchange::json(1).requiring("logged quoted"));
    let bundle = std::fs::read(kept.path("answer/bundle.json")).unwrap();
    let bundle = touchstone_formats::Bundle::parse(&bundle).unwrap();
    let proof = bundle.proof.clone().unwrap();
    std::fs::write(kept.path("proof"), &proof).unwrap();
    std::fs::write(kept.path("note"), &proof[proof.find("\n\n").unwrap() + 2..]).unwrap();
    std::fs::write(kept.path("receipt"), &bundle.receipt).unwrap();
    std::fs::write(kept.path("keyset"), bundle.keyset.to_jcs()).unwrap();
    std::fs::write(
        kept.path("catalog"),
        bundle.catalog.as_ref().unwrap().to_jcs(),
    )
    .unwrap();
    std::fs::write(kept.path("verdict"), kept.check(&[]).stdout).unwrap();
    let digest = bundle.keyset.digest().to_string();
    for (file, says) in [
        ("answer/bundle.json", "Evidence of purpose receipt"),
        ("answer/expect.json", "POST /v2/models/digits/infer"),
        ("answer/response.json", "200"),
        ("receipt", "sequence number: 3"),
        ("keyset", digest.as_str()),
        ("catalog", "digits version 1"),
        ("proof", "index: 5"),
        ("note", "A checkpoint"),
        ("verdict", "snp.measurement: pass"),
        ("root.pem", "SIM-ARK-Genoa"),
    ] {
        let run = touchstone_in(kept.folder.path(), &["show", file]);
        assert_eq!(run.code, 0, "{file}: {}", run.stderr);
        assert!(run.stdout.contains(says), "{file}: {}", run.stdout);
        assert!(run.stdout.contains("Nothing of this has been judged"));
    }
    // Malformed files of ours are malformed, also when they are only looked at.
    std::fs::write(kept.path("lie"), [&bundle.receipt[..], &[0]].concat()).unwrap();
    assert_eq!(touchstone_in(kept.folder.path(), &["show", "lie"]).code, 2);
}
