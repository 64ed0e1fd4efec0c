//! The strict policy that `touchstone policy init` writes.

use std::fmt::Write as _;

use touchstone_formats::evidence::Tee;

use super::check_ids;

const HEAD: &str = r#"# A strict policy for Touchstone, every check named. `touchstone check` and `appraise` refuse
# whatever does not satisfy one of its platforms whole.
#
# Each value is { expect = … }, or { waive = "reason" } if it is not to be checked; a waiver may have
# `until = "YYYY-MM-DD"`, the last day on which it waives. Where a list is expected one bare value will
# do. Keys may not be left out and unknown ones are errors: nothing is unchecked by omission.
# Verdicts show what they found in the form that `expect` takes. Copy it from there only after you have
# found out for yourself that it is right: never take a reference value from the server it is about.

v = "touchstone/policy/1"
profile = "strict/1"                   # what it was made from, for people

[answer]

# Guarantees that must hold, besides those that the receipt itself states: signed, logged, quoted,
# recomputed. What each one means: formats, section 1.
require = ["logged", "signed"]

# Your own nonce must be in the receipt. Without one an answer may be older than your question.
nonce = { expect = "present" }

# How old the guest says the answer is, at most, in seconds. The guest's clock vouches for nothing;
# with a nonce this adds little.
fresh_seconds = { waive = "the nonce shows that the answer is not older than the question" }

# Digests of the models that may answer. The template accepts none: put in what you hashed yourself.
models = { expect = [] }

# Digests of the configurations (runtime, options, processing) that may answer.
configs = { waive = "any configuration of these models that the measured software can make" }

# How long one keyset's keys may live, in seconds.
keyset_span_seconds = { expect = 604800 }

# How old revocation lists (and TCB info and QE identity) may be at the time of judgement, in seconds.
collateral_age_seconds = { expect = 2592000 }

# The connection over which you ask. This table may be left out as a whole: then nothing is sent before
# tls-exporter holds, and kept answers and names are not looked at.
[session]

# What must bind a connection to the enclave before anything is sent on it. tls-exporter: the enclave
# made a quote for this very TLS session and your nonce, so that nobody stands between. ohttp-key: each
# request is sealed to a key of the enclave, which made a quote over it for your nonce (Oblivious HTTP).
# none: whoever relays the connection may read it.
binding = { expect = ["tls-exporter"] }

# What must have bound the connection that a kept answer came over, which `check` reads in its record,
# session.json: tls-exporter; ohttp-key; spki-pin, where the TLS key alone was noted, as for curl with
# --pinnedpubkey; none.
answers = { waive = "a receipt proves who answered, whatever the answer came over; expect tls-exporter if nobody may have read it on its way" }

# Names of keysets that you accept, of connections and of receipts. The operator chooses the name and
# nobody certifies it. No binding tells two genuine enclaves apart that satisfy the same policy: whoever
# relays you may lead you to another one than you mean. To pin which one it is, expect its chips
# ({chips}), what its host gave at launch ({host}), or its name here.
name = { waive = "any enclave that satisfies this policy; pin the one you mean by {chips}, {host} or its name" }
"#;

const SNP_HEAD: &str = r#"
# One kind of platform. Add another such table, with all its checks, to accept another kind.
[[platform]]
tee = "sev-snp"

# What no policy decides, because nothing could stand on it: the report's form, its signature, the chain
# to AMD's root, revocation, HWID and TCB of the endorsement certificate, and REPORT_DATA.
[platform.checks]
"#;

const TDX_HEAD: &str = r#"
# One kind of platform. Add another such table, with all its checks, to accept another kind.
[[platform]]
tee = "tdx"

# What no policy decides, because nothing could stand on it: the quote's form, its signature, the quoting
# enclave's, the chains to Intel's root, revocation, Intel's signatures under TCB info and QE identity, a TCB
# level that is reached and not revoked, and REPORTDATA.
[platform.checks]
"#;

/// A paragraph before a check's own.
fn introduction(id: &str) -> Option<&'static str> {
    (id == "snp.tcb.reported").then_some(
        "Floors at the levels of AMD-SB-3019 (CVE-2024-56161, forged microcode). The microcode level is \
         the low byte of the fixed revision: Milan 0x0A0011DB, Milan-X 0x0A001244, Genoa 0x0A101154, \
         Genoa-X 0x0A10124F, Bergamo and Siena 0x0AA00219; SNP firmware is 24 (Milan) and 23 (Zen 4). \
         Turin has AMD-SB-3020's level, SNP firmware 4 and microcode 0x0B002150 (0x0B002147 is the \
         first that is not open to forged microcode); Turin-Dense has microcode 0x0B101047. Boot loader \
         and TEE have no floor there. Newer bulletins ask for more: AMD-SB-3020 (CVE-2025-0033) and \
         AMD-SB-3016 for SNP 27, AMD-SB-3034 for SNP 28 on Genoa, AMD-SB-3030 for SNP 29 on Milan, \
         AMD-SB-3027 for microcode 86 on Genoa. Raise these numbers as soon as the machines you use allow \
         it; they have to be raised by hand with every bulletin.",
    )
}

/// A strict policy with every check named and explained. It parses, and accepts nothing until
/// the launch measurement is filled in (of TDX MRTD and RTMR0 to RTMR2; and, for answers, the model digests).
pub fn template(tee: Tee) -> String {
    let (chips, host, platform) = match tee {
        Tee::SevSnp => ("snp.chip_id", "snp.host_data", SNP_HEAD),
        Tee::Tdx => ("tdx.platform.instance", "tdx.mr_config_id", TDX_HEAD),
    };
    let mut out = HEAD.replace("{chips}", chips).replace("{host}", host);
    out.push_str(platform);
    for spec in check_ids(tee) {
        out.push('\n');
        if let Some(paragraph) = introduction(spec.id) {
            comment(&mut out, paragraph);
            out.push_str("#\n");
        }
        comment(&mut out, spec.summary);
        comment(&mut out, spec.why);
        comment(
            &mut out,
            &format!("Expects {}. Source: {}.", spec.form.words(), spec.source),
        );
        let _ = writeln!(out, "\"{}\" = {}", spec.id, spec.template);
    }
    out
}

/// A paragraph as comment lines of at most 100 columns.
pub(super) fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 100 {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}
