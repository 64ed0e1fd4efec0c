//! docs/cli.md says what the command does: the same options, none missing, none invented.

mod support;

use std::collections::BTreeSet;

use support::touchstone;

fn reference() -> String {
    let path = touchstone_testkit::fixtures::workspace_root().join("docs/cli.md");
    std::fs::read_to_string(path).expect("docs/cli.md")
}

/// Long options in a text, `--help` aside.
fn options(text: &str) -> BTreeSet<String> {
    let starts = text.match_indices("--").map(|(at, _)| &text[at + 2..]);
    let names = starts.map(|rest| {
        let end = rest
            .find(|c: char| !c.is_ascii_lowercase() && c != '-')
            .unwrap_or(rest.len());
        rest[..end].to_owned()
    });
    names
        .filter(|name| !name.is_empty() && !name.starts_with('-') && name != "help")
        .collect()
}

#[test]
fn the_reference_has_every_option_and_no_other() {
    let text = reference();
    for command in [
        "ask",
        "proxy",
        "check",
        "appraise",
        "explain",
        "regrade",
        "advisories sign",
        "prove-refusal",
        "evidence sev-snp",
        "evidence tdx",
        "show",
        "model digest",
        "model verify",
        "policy init",
        "policy lint",
        "policy diff",
        "manifest new",
        "manifest add",
        "manifest add-model",
        "manifest key",
        "manifest sign",
        "manifest verify",
        "manifest diff",
        "collateral fetch",
        "collateral serve",
        "collateral status",
        "measure snp",
        "measure tdx",
        "doctor",
    ] {
        let heading = format!("\n## {command}\n");
        let section = text
            .split(&heading)
            .nth(1)
            .unwrap_or_else(|| panic!("a section {command}"));
        let section = section.split("\n## ").next().unwrap();
        let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = touchstone(&args).stdout;
        let help = help
            .split("\nOptions:")
            .nth(1)
            .expect("options")
            .split("\nExample")
            .next();
        assert_eq!(options(section), options(help.unwrap()), "{command}");
    }
}

#[test]
fn the_reference_has_every_exit_code() {
    let text = reference();
    for (code, word) in [
        (1, "usage"),
        (2, "malformed"),
        (3, "not-authentic"),
        (5, "collateral"),
        (4, "refused"),
        (6, "holds"),
        (0, "holds"),
        (7, "no-quote"),
    ] {
        assert!(text.contains(&format!("| {code} | `{word}` |")), "{code}");
    }
}

/// What the guide for clients tells them to type is understood by the command.
#[test]
fn commands_in_the_guides_are_understood() {
    let root = touchstone_testkit::fixtures::workspace_root().join("docs");
    let mut seen = 0;
    for file in [
        "clients.md",
        "operators.md",
        "proxy.md",
        "auditors.md",
        "policies.md",
        "collateral.md",
        "manifests.md",
        "measure.md",
    ] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        for block in text
            .split("```sh\n")
            .skip(1)
            .map(|b| b.split("```").next().unwrap())
        {
            let joined = block.replace("\\\n", " ");
            for line in joined
                .lines()
                .filter(|line| line.starts_with("touchstone "))
            {
                let line = line.split(" # ").next().unwrap();
                let words: Vec<&str> = line.split_whitespace().skip(1).collect();
                let command: &[&str] = match words[0] {
                    "advisories" | "collateral" | "evidence" | "manifest" | "measure" | "model"
                    | "policy" => &words[..2],
                    _ => &words[..1],
                };
                let help = touchstone(&[command, &["--help"]].concat()).stdout;
                let known = options(&help);
                for option in options(line) {
                    assert!(known.contains(&option), "{file}: --{option} in {line}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen >= 9, "{seen} commands");
}
