//! Policies for tests: the strict template with a few values changed.

/// Replaces values in a policy's text (TOML, one key a line or a value in brackets over several lines). Keys as they stand in the file, without
/// quotes: `models`, `snp.measurement`. Values are TOML: `{ expect = ["…"] }`.
///
/// # Panics
/// When a key does not stand there exactly once: a test that changes nothing would test nothing.
pub fn edit(policy: &str, changes: &[(&str, &str)]) -> String {
    let mut out = policy.to_owned();
    for (key, value) in changes {
        out = edit_one(&out, key, value);
    }
    out
}

fn edit_one(policy: &str, key: &str, value: &str) -> String {
    let mut out = String::new();
    let mut found = 0;
    let mut open = 0i32;
    for line in policy.lines() {
        // Inside a value that was replaced and goes on.
        if open > 0 {
            open += brackets(line);
            continue;
        }
        let rest = line
            .strip_prefix(key)
            .or_else(|| line.strip_prefix(&format!("\"{key}\"")));
        match rest.and_then(|rest| rest.trim_start().strip_prefix('=')) {
            Some(old) => {
                found += 1;
                open = brackets(old);
                let name = &line[..line.len() - old.len()];
                out += &format!("{name} {value}\n");
            }
            None => out += &format!("{line}\n"),
        }
    }
    assert_eq!(found, 1, "the key {key} in the policy:\n{policy}");
    out
}

/// Brackets opened minus brackets closed; quoted text and comments hold none in what is edited here.
fn brackets(text: &str) -> i32 {
    let text = text.split('#').next().unwrap_or_default();
    text.chars()
        .map(|c| i32::from("[{".contains(c)) - i32::from("]}".contains(c)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "v = \"1\"\nmodels = { expect = [] }\n[platform.checks]\n\"snp.tcb\" = { expect = {\n    Milan = { snp = 1 },\n} }\n\"snp.vmpl\" = { expect = 0 }\n";

    #[test]
    fn values_of_one_line_and_of_several_are_replaced() {
        let edited = edit(
            POLICY,
            &[
                ("models", "{ waive = \"any\" }"),
                ("snp.tcb", "{ waive = \"old\" }"),
            ],
        );
        let expected = "v = \"1\"\nmodels = { waive = \"any\" }\n[platform.checks]\n\"snp.tcb\" = { waive = \"old\" }\n\"snp.vmpl\" = { expect = 0 }\n";
        assert_eq!(edited, expected);
    }

    #[test]
    #[should_panic(expected = "the key snp.nonsense")]
    fn a_key_that_is_not_there_is_an_error() {
        edit(POLICY, &[("snp.nonsense", "{ expect = 0 }")]);
    }
}
