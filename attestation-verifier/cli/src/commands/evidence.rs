//! `touchstone evidence`: makes an evidence file out of a raw report or quote and its collateral.

mod tdx;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;
use touchstone_formats::evidence::{Collateral, Evidence, SnpCollateral, Tee};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use crate::files;
use crate::output::{Failure, Outcome, print, say};

/// Bytes of an attestation report (AMD 56860, ATTESTATION_REPORT).
const REPORT: usize = 1184;
/// Zero bytes that a source may have appended (formats.md, "Conventions").
const MAX_PADDING: usize = 8192;

/// Make an evidence file out of a raw report or quote and its collateral
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(
    after_help = "Example:\n  touchstone evidence sev-snp --report report.bin --vek vcek.der \
    --chain cert_chain.pem --crl crl.der -o evidence.json\n  \
    touchstone evidence tdx --quote quote.bin --collateral collateral.json -o evidence.json"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// AMD SEV-SNP: an attestation report with VCEK or VLEK, chain and CRL
    #[command(
        after_help = "Files are DER or PEM; a PEM file may hold several. Roots in them are \
        ignored, and so is every certificate that did not issue the VEK.\n\n\
        Example:\n  touchstone evidence sev-snp --report report.bin --vek vcek.der \
        --chain cert_chain.pem --crl crl.der -o evidence.json"
    )]
    SevSnp {
        /// Attestation report, 1184 bytes
        #[arg(long, value_name = "R")]
        report: PathBuf,
        /// Certificate of the key that signed it (VCEK or VLEK)
        #[arg(long, value_name = "V")]
        vek: PathBuf,
        /// Certificates above it
        #[arg(long, value_name = "C")]
        chain: Vec<PathBuf>,
        /// Revocation lists
        #[arg(long, value_name = "C")]
        crl: Vec<PathBuf>,
        #[command(flatten)]
        to: To,
    },
    /// Intel TDX: a quote with Intel's collateral and an event log
    #[command(
        after_help = "The collateral file is one of ours (`collateral fetch`, GET /v1/collateral), or a JSON object with \
        the members tcb_info, qe_identity, their signatures and issuer chains, pck_crl and root_ca_crl, as \
        dcap-qvl writes it. What dstack answers to GetQuote will do as quote and as event log.\n\n\
        Example:\n  touchstone evidence tdx --quote quote.bin --collateral collateral.json \
        --event-log CCEL_data -o evidence.json"
    )]
    Tdx {
        /// Quote, version 4 or 5
        #[arg(long, value_name = "Q")]
        quote: PathBuf,
        /// Intel's collateral; without it the evidence is judged as lacking it
        #[arg(long, value_name = "C.json")]
        collateral: Option<PathBuf>,
        /// What was measured while the TD ran: CCEL, or dstack's JSON
        #[arg(long, value_name = "L")]
        event_log: Option<PathBuf>,
        #[command(flatten)]
        to: To,
    },
}

/// Where the evidence goes.
#[derive(clap::Args)]
struct To {
    /// File to write; stdout without it
    #[arg(short, long, value_name = "EVIDENCE")]
    output: Option<PathBuf>,
    /// Print one JSON object: what was written, or why nothing was. Without -o the evidence is one
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let (evidence, missing, to) = match args.command {
        Command::SevSnp {
            report,
            vek,
            chain,
            crl,
            to,
        } => (sev_snp(&report, &vek, &chain, &crl)?, Vec::new(), to),
        Command::Tdx {
            quote,
            collateral,
            event_log,
            to,
        } => {
            let (evidence, missing) = tdx::make(&quote, collateral.as_ref(), event_log.as_ref())?;
            (evidence, missing, to)
        }
    };
    if !missing.is_empty() {
        let missing = missing.join(", ");
        say(&format!(
            "note: without {missing} this evidence is refused (exit 5)\n"
        ));
    }
    let file = evidence.to_file();
    // What would be refused for its size is not written.
    Evidence::parse(&file).map_err(|error| Failure::malformed("evidence.format", error.into()))?;
    match to.output {
        // JSON, and so text.
        None => print(&String::from_utf8_lossy(&file)),
        Some(path) => {
            files::write(&path, &file)?;
            if to.json {
                let wrote = json!({
                    "v": "touchstone/evidence-made/1",
                    "exit": 0,
                    "wrote": path.display().to_string(),
                    "tee": evidence.tee.name(),
                    "missing": missing,
                });
                print(&format!("{wrote}\n"));
            }
            say(&format!("wrote {}\n", path.display()));
        }
    }
    Ok(Outcome::Exit(0))
}

fn sev_snp(
    report: &Path,
    vek: &Path,
    chain: &[PathBuf],
    crl: &[PathBuf],
) -> Result<Evidence, Failure> {
    let read = |path: &Path, what| files::read(path, what, files::MAX_TEXT);
    let malformed = |error| Failure::malformed("evidence.format", error);

    let report_bytes = read(report, "report")?;
    let quote = strip(report_bytes, REPORT).with_context(|| format!("report {}", report.display()));
    let quote = quote.map_err(malformed)?;

    let mut veks = items(vek, &read(vek, "certificate")?, Item::Certificate).map_err(malformed)?;
    let vek_der = veks
        .pop()
        .with_context(|| format!("no certificate in {}", vek.display()))?;
    if !veks.is_empty() {
        return Err(anyhow!(
            "--vek {}: expected one certificate, found several; give the others with --chain",
            vek.display()
        )
        .into());
    }
    let mut candidates = Vec::new();
    for path in chain {
        let file = read(path, "certificate")?;
        candidates.extend(items(path, &file, Item::Certificate).map_err(malformed)?);
    }
    let mut crls = Vec::new();
    for path in crl {
        let file = read(path, "revocation list")?;
        crls.extend(items(path, &file, Item::Crl).map_err(malformed)?);
    }
    dedupe(&mut crls);
    let chain = intermediates(&vek_der, candidates)?;
    Ok(Evidence {
        purpose: None,
        nonce: None,
        tee: Tee::SevSnp,
        quote,
        collateral: Some(Collateral::SevSnp(SnpCollateral {
            vek: Some(vek_der),
            chain,
            crls,
        })),
        event_log: None,
    })
}

/// A raw report or quote without the zero bytes that its source appended; as it is, where it has other bytes after its end, or
/// where no end is to be found.
pub fn unpadded(bytes: &[u8]) -> &[u8] {
    let end = tdx::declared_end(bytes).unwrap_or(REPORT);
    match bytes.split_at_checked(end) {
        Some((object, tail)) if tail.len() <= MAX_PADDING && tail.iter().all(|&b| b == 0) => object,
        _ => bytes,
    }
}

/// The report or quote of `length` bytes alone, without the zero bytes that its source appended.
fn strip(mut bytes: Vec<u8>, length: usize) -> Result<Vec<u8>> {
    let found = bytes.len();
    ensure!(found >= length, "expected {length} bytes, found {found}");
    let tail = bytes.split_off(length);
    ensure!(
        tail.len() <= MAX_PADDING && tail.iter().all(|&b| b == 0),
        "expected {length} bytes and at most {MAX_PADDING} zero bytes after them, found {found} bytes"
    );
    Ok(bytes)
}

#[derive(Clone, Copy, PartialEq)]
enum Item {
    Certificate,
    Crl,
}

impl Item {
    fn label(self) -> &'static str {
        match self {
            Item::Certificate => "CERTIFICATE",
            Item::Crl => "X509 CRL",
        }
    }

    /// Whether these bytes are one such object in DER, and nothing after it.
    fn is(self, der: &[u8]) -> bool {
        let rest = match self {
            Item::Certificate => X509Certificate::from_der(der).map(|(rest, _)| rest),
            Item::Crl => CertificateRevocationList::from_der(der).map(|(rest, _)| rest),
        };
        rest.is_ok_and(<[u8]>::is_empty)
    }
}

/// The DER objects in a file, DER itself or PEM.
fn items(path: &Path, file: &[u8], item: Item) -> Result<Vec<Vec<u8>>> {
    let label = item.label();
    let blocks = if file.windows(10).any(|w| w == b"-----BEGIN") {
        let mut blocks = Vec::new();
        for pem in Pem::iter_from_buffer(file) {
            let pem = pem.with_context(|| format!("{}: not PEM", path.display()))?;
            let found = pem.label.as_str();
            ensure!(
                found == label,
                "{}: expected {label} blocks, found {found}",
                path.display()
            );
            blocks.push(pem.contents);
        }
        blocks
    } else {
        vec![file.to_vec()]
    };
    ensure!(!blocks.is_empty(), "{}: no {label} in it", path.display());
    for der in &blocks {
        ensure!(item.is(der), "{}: not a DER or PEM {label}", path.display());
    }
    Ok(blocks)
}

/// Of the certificates that were given, the one that issued the VEK.
///
/// Roots are the verifier's own and self-signed certificates say nothing, so they are left out. If
/// no name fits, the others stay for the verifier to refuse: it says which.
fn intermediates(vek: &[u8], mut candidates: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    fn names(der: &[u8]) -> Result<(&[u8], &[u8])> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|e| anyhow!("certificate: {e}"))?;
        let tbs = certificate.tbs_certificate;
        Ok((tbs.subject.as_raw(), tbs.issuer.as_raw()))
    }
    dedupe(&mut candidates);
    let (_, issuer) = names(vek)?;
    let mut others = Vec::new();
    let mut issuers = Vec::new();
    for der in &candidates {
        let (subject, by) = names(der)?;
        if subject == by {
            continue;
        }
        if subject == issuer {
            issuers.push(der.clone());
        }
        others.push(der.clone());
    }
    match issuers.len() {
        0 => Ok(others),
        1 => Ok(issuers),
        n => {
            bail!("--chain: {n} different certificates have the name of the VEK's issuer; give one")
        }
    }
}

fn dedupe(items: &mut Vec<Vec<u8>>) {
    let mut seen = Vec::with_capacity(items.len());
    items.retain(|item| {
        let new = !seen.contains(item);
        if new {
            seen.push(item.clone());
        }
        new
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_zero_bytes_are_stripped_and_nothing_else() {
        let report = vec![7; REPORT];
        let with = |tail: &[u8]| [&report[..], tail].concat();
        assert_eq!(strip(report.clone(), REPORT).unwrap(), report);
        assert_eq!(strip(with(&[0; 1]), REPORT).unwrap(), report);
        assert_eq!(strip(with(&vec![0; MAX_PADDING]), REPORT).unwrap(), report);
        assert!(strip(with(&vec![0; MAX_PADDING + 1]), REPORT).is_err());
        assert!(strip(with(&[0, 1]), REPORT).is_err());
        assert!(strip(report[1..].to_vec(), REPORT).is_err());
    }
}
