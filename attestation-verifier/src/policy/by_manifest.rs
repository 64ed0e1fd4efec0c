//! A policy's text, with what a manifest can say left to one.

use std::fmt::Write as _;

use super::template::comment;
use crate::manifest::Demand;

/// Keys of `[answer]` and of platforms whose values a manifest may list.
const KEYS: [&str; 7] = [
    "models",
    "configs",
    "snp.measurement",
    "tdx.mrtd",
    "tdx.rtmr0",
    "tdx.rtmr1",
    "tdx.rtmr2",
];

/// What a platform begins with in a template's text.
const PLATFORM: &str = "\n# One kind of platform.";

const WHY: &str = "Whose word is taken for what may run: a manifest lists releases with their measurements, models and \
                   configurations (docs/manifests.md), and counts if so many of these signers signed it. Its name says which \
                   manifest. Versions below minimum_version are refused: raise it with each manifest that you accept, or \
                   have --manifest-state remember.";

/// Makes of the text of [`super::template`] or of a profile one that expects `"manifest"` wherever it can, with this
/// `[manifest]`.
pub fn by_manifest(text: &str, demand: &Demand) -> String {
    let mut table = String::from("\n");
    comment(&mut table, WHY);
    let _ = writeln!(
        table,
        "[manifest]\nname = {}\nminimum_version = {}\nthreshold = {}",
        quoted(&demand.name),
        demand.minimum_version,
        demand.signers.threshold()
    );
    for signer in demand.signers.keys() {
        let _ = writeln!(
            table,
            "\n[[manifest.signer]]\nname = {}\nkey = \"\"\"\n{}\"\"\"",
            quoted(&signer.name),
            signer.key.to_pem()
        );
    }
    let text = text.replacen(PLATFORM, &(table + PLATFORM), 1);
    let mut out = String::new();
    for line in text.lines() {
        let name = line.split(" = ").next().unwrap_or_default();
        if KEYS.contains(&name.trim_matches('"')) {
            let _ = writeln!(out, "{name} = {{ expect = \"manifest\" }}");
        } else {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
