//! `regrade` and `advisories sign`: lists are made, read and refused; bundles turn.

mod support;

use serde_json::{Value, json};
use support::{Kept, Run, touchstone_in};
use touchstone_testkit::mint::{Exchange, World};

const NONCE: (&str, &str) = ("nonce", "{ waive = \"an archive\" }");

struct Archive {
    kept: Kept,
    key: String,
    iat: u64,
}

impl Archive {
    /// `answer/`, `policy.toml`, `root.pem`, `seed.hex`, and `notices.txt` with one notice about Genoa.
    fn new() -> Archive {
        let world = World::new(1);
        let minted = world.mint(Exchange::json(1)).finish();
        let iat = minted.claims.iat;
        let kept = Kept::new(world, &minted);
        std::fs::write(
            kept.path("policy.toml"),
            support::policy_for(&kept.world, &[NONCE]),
        )
        .unwrap();
        std::fs::write(kept.path("seed.hex"), "07".repeat(32) + "\n").unwrap();
        let mut archive = Archive {
            kept,
            key: String::new(),
            iat,
        };
        archive.key = archive.sign("notices", |_| ());
        archive
    }

    /// Writes and signs a list `NAME.txt`; gives the verifier key.
    fn sign(&self, name: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut list = json!({
            "v": "touchstone/advisories/1", "version": 7, "issued_at": self.iat, "notices": [{
                "id": "example-2026-1", "tee": "sev-snp", "products": ["Genoa"], "below": {"microcode": 255},
                "statuses": [], "advisories": [], "not_trusted_since": self.iat,
                "source": "AMD-SB-0000", "words": "microcode before 255 leaks",
            }],
        });
        change(&mut list);
        std::fs::write(
            self.kept.path(&format!("{name}.json")),
            serde_json::to_string_pretty(&list).unwrap(),
        )
        .unwrap();
        let run = self.run(&[
            "advisories",
            "sign",
            &format!("{name}.json"),
            "--key",
            "seed.hex",
            "--name",
            "advisories.example",
            "-o",
            &format!("{name}.txt"),
        ]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stderr
            .strip_prefix("verifier key: ")
            .expect("the key")
            .trim_end()
            .to_owned()
    }

    fn run(&self, args: &[&str]) -> Run {
        touchstone_in(self.kept.folder.path(), args)
    }

    fn regrade(&self, bundles: &[&str], list: &str, more: &[&str]) -> Run {
        let mut args = vec!["regrade"];
        args.extend(bundles);
        args.extend([
            "--advisories",
            list,
            "--advisories-key",
            &self.key,
            "--policy",
            "policy.toml",
        ]);
        args.extend(["--trust-simulated-root", "root.pem", "--expect-simulated"]);
        if !more.contains(&"--at-receipt") && !more.contains(&"--at") {
            args.extend(["--at", &self.kept.at]);
        }
        args.extend(more);
        self.run(&args)
    }
}

#[test]
fn a_notice_turns_a_bundle_that_held() {
    let archive = Archive::new();
    let run = archive.regrade(&["answer", "answer/bundle.json"], "notices.txt", &[]);
    assert_eq!(run.code, 4, "{}{}", run.stdout, run.stderr);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[0], "2 bundles, 2 turned by a notice, exit 4");
    assert!(
        lines[1].starts_with("advisories: version 7 of ")
            && lines[1].contains("signed by advisories.example")
    );
    assert!(
        lines[4].starts_with("answer ") && lines[4].contains("holds (0)"),
        "{}",
        run.stdout
    );
    assert!(
        lines[4].contains("refused (4)  advisories.notice: notice example-2026-1"),
        "{}",
        run.stdout
    );

    archive.sign("later", |list| {
        list["notices"][0]["not_trusted_since"] = json!(archive.iat + 1)
    });
    let later = archive.regrade(&["answer"], "later.txt", &[]);
    assert_eq!(later.code, 0, "{}", later.stdout);
    assert!(later.stdout.contains("0 turned"), "{}", later.stdout);
}

#[test]
fn the_worst_decides_and_json_says_it_all() {
    let archive = Archive::new();
    std::fs::write(archive.kept.path("nonsense.json"), "{}\n").unwrap();
    let run = archive.regrade(&["answer", "nonsense.json"], "notices.txt", &["--json"]);
    assert_eq!(run.code, 2);
    let value: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(value["v"], "touchstone/regrade/1");
    assert_eq!(value["exit"], 2);
    assert_eq!(value["advisories"]["version"], 7);
    assert_eq!(value["advisories"]["sha256"].as_str().unwrap().len(), 64);
    let first = &value["bundles"][0];
    assert_eq!(
        (&first["before"]["exit"], &first["after"]["exit"]),
        (&json!(0), &json!(4))
    );
    assert_eq!(first["after"]["deciding"], "advisories.notice");
    assert_eq!(first["after"]["class"], "operations");
    assert_eq!(first["notices"], json!(["example-2026-1"]));
    assert_eq!(value["bundles"][1]["before"]["deciding"], "bundle.format");
    // One that cannot be read is worse still, and hides nothing.
    let run = archive.regrade(&["nowhere", "answer"], "notices.txt", &["--json"]);
    assert_eq!(run.code, 1);
    let value: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(value["bundles"][1]["after"]["exit"], 4);
}

/// Years later collateral has expired; the receipt's own time is used on demand alone, and it is said.
#[test]
fn the_time_is_the_callers() {
    let archive = Archive::new();
    let late = archive.regrade(
        &["answer"],
        "notices.txt",
        &["--at", "2029-01-01T00:00:00Z"],
    );
    assert_eq!(late.code, 5, "{}", late.stdout);
    archive.sign("empty", |list| list["notices"] = json!([]));
    let then = archive.regrade(&["answer"], "empty.txt", &["--at-receipt"]);
    assert_eq!(then.code, 0, "{}", then.stdout);
    assert!(
        then.stdout.contains("nothing vouches for it"),
        "{}",
        then.stdout
    );
}

#[test]
fn lists_that_are_not_signed_or_old_are_refused() {
    let archive = Archive::new();
    let honest = std::fs::read_to_string(archive.kept.path("notices.txt")).unwrap();
    let refused = |text: &str, more: &[&str], exit: i32, id: &str| {
        std::fs::write(archive.kept.path("list.txt"), text).unwrap();
        let run = archive.regrade(&["answer"], "list.txt", &[more, &["--json"]].concat());
        run.refused(exit, id);
        run.stderr
    };
    let unsigned = honest.split("\n\n").next().unwrap().to_owned() + "\n";
    refused(&unsigned, &[], 3, "advisories.signature");
    refused(
        &honest.replace("255", "254"),
        &[],
        3,
        "advisories.signature",
    );
    refused(
        &honest.replace(":7}", ":8}"),
        &[],
        3,
        "advisories.signature",
    );
    refused(&(honest.clone() + "\n"), &[], 2, "advisories.format");
    let old = refused(
        &honest,
        &["--advisories-min-version", "8"],
        4,
        "advisories.version",
    );
    assert!(
        old.contains("list.txt") && old.contains("version 7"),
        "{old}"
    );
    std::fs::write(archive.kept.path("list.txt"), &honest).unwrap();
    let run = archive.regrade(&["answer"], "list.txt", &["--advisories-min-version", "7"]);
    assert_eq!(run.code, 4);
    assert!(run.stdout.contains("advisories.notice"), "{}", run.stdout);

    // The key may be in a file; one that is none is a usage error.
    std::fs::write(archive.kept.path("key.txt"), archive.key.clone() + "\n").unwrap();
    let with_key = |key: &str| {
        let mut args = vec![
            "regrade",
            "answer",
            "--advisories",
            "notices.txt",
            "--policy",
            "policy.toml",
        ];
        args.extend([
            "--trust-simulated-root",
            "root.pem",
            "--at",
            &archive.kept.at,
        ]);
        args.extend(["--advisories-key", key]);
        archive.run(&args)
    };
    assert_eq!(with_key("key.txt").code, 4);
    assert_eq!(with_key("nonsense").code, 1);
    assert_eq!(
        with_key(&archive.key.replace("advisories.example+", "other.example+")).code,
        1
    );
}

#[test]
fn what_is_signed_can_be_read() {
    let archive = Archive::new();
    let sign = |seed: &str, name: &str, notices: &str| {
        std::fs::write(archive.kept.path("s.hex"), seed).unwrap();
        std::fs::write(archive.kept.path("n.json"), notices).unwrap();
        archive.run(&[
            "advisories",
            "sign",
            "n.json",
            "--key",
            "s.hex",
            "--name",
            name,
        ])
    };
    let notices = std::fs::read_to_string(archive.kept.path("notices.json")).unwrap();
    let seed = "07".repeat(32);
    let run = sign(&seed, "advisories.example", &notices);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let file = std::fs::read_to_string(archive.kept.path("notices.txt")).unwrap();
    assert_eq!(
        run.stdout, file,
        "the same to stdout, and signing is deterministic"
    );
    assert_eq!(sign("07", "advisories.example", &notices).code, 1);
    assert_eq!(sign(&seed, "two words", &notices).code, 1);
    assert_eq!(sign(&seed, "a+b", &notices).code, 1);
    assert_eq!(sign(&seed, "", &notices).code, 1);
    let wrong = sign(
        &seed,
        "advisories.example",
        &notices.replace("Genoa", "Genua"),
    );
    assert_eq!(wrong.code, 2);
    assert!(
        wrong.stderr.contains("n.json") && wrong.stderr.contains("notices[0].products"),
        "{}",
        wrong.stderr
    );
    // Nothing is written over.
    let again = archive.run(&[
        "advisories",
        "sign",
        "n.json",
        "--key",
        "s.hex",
        "--name",
        "x",
        "-o",
        "notices.txt",
    ]);
    assert_ne!(again.code, 0);
    assert_eq!(
        std::fs::read_to_string(archive.kept.path("notices.txt")).unwrap(),
        file
    );
}
