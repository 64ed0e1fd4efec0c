//! Files in words, for `show`.
//!
//! Everything here comes from whoever made the file: control characters are escaped before a
//! terminal sees them.

use anyhow::{Context, Result, anyhow, bail};
use attestation_verifier::Policy;
use attestation_verifier::dates::rfc3339;
use attestation_verifier::exchange::{Expect, ResponseInfo, SessionRecord};
use attestation_verifier::fields::{self, Structure};
use attestation_verifier::ohttp::OhttpRecord;
use attestation_verifier::policy::Rule;
use attestation_verifier::regrade::ListContent;
use serde::Serialize;
use serde_json::Value;
use touchstone_formats::evidence::{Collateral, CollateralFile, TdxCollateral, quote_report_data};
use touchstone_formats::session::{SessionAnswer, SessionRequest};
use touchstone_formats::text::hex_encode;
use touchstone_formats::{
    Bundle, Catalog, Digest, Evidence, Keyset, Receipt, SignedNote, Tee, TlogProof, jcs,
};
use x509_parser::pem::Pem;

use crate::commands::evidence::unpadded;
use crate::output::clean;

/// What is said about a file: lines, with lines under them.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub struct Page {
    parts: Vec<Line>,
}

/// A line: a heading, or a field with its value.
#[derive(Default, Serialize)]
struct Line {
    /// Where the field begins, bytes from the start of the quote or report.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<usize>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meaning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Line>,
}

impl Page {
    /// A line of its own.
    fn line(&mut self, text: impl AsRef<str>) {
        self.parts.push(Line {
            name: text.as_ref().to_owned(),
            ..Line::default()
        });
    }

    /// `label: value`.
    fn field(&mut self, label: &str, value: impl std::fmt::Display) {
        self.parts.push(Line {
            name: label.to_owned(),
            value: Some(value.to_string()),
            ..Line::default()
        });
    }

    /// `label: value`, where there is one.
    fn maybe(&mut self, label: &str, value: Option<impl std::fmt::Display>) {
        match value {
            Some(value) => self.field(label, value),
            None => self.field(label, "none"),
        }
    }

    /// A heading with lines under it.
    fn under(&mut self, heading: &str, fill: impl FnOnce(&mut Page) -> Result<()>) -> Result<()> {
        let mut inner = Page::default();
        fill(&mut inner)?;
        self.parts.push(Line {
            name: heading.to_owned(),
            parts: inner.parts,
            ..Line::default()
        });
        Ok(())
    }

    /// Something with fields.
    fn structure(&mut self, structure: Structure) {
        self.parts.push(Line::from(structure));
    }

    /// Text of several lines.
    fn block(&mut self, text: &str) {
        for line in text.lines() {
            self.line(line);
        }
    }

    /// Lines for a terminal, which no character in them controls.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.parts.iter().for_each(|line| line.write(&mut out, 0));
        out
    }
}

impl From<Structure> for Line {
    fn from(structure: Structure) -> Line {
        let fields = structure.fields.into_iter().map(|field| Line {
            offset: field.offset,
            name: field.name,
            value: Some(field.value),
            meaning: field.meaning,
            parts: Vec::new(),
        });
        let parts = structure.parts.into_iter().map(Line::from);
        Line {
            name: structure.title,
            meaning: Some(structure.source.to_owned()),
            parts: fields.chain(parts).collect(),
            ..Line::default()
        }
    }
}

impl Line {
    fn write(&self, out: &mut String, indent: usize) {
        out.push_str(&"  ".repeat(indent));
        let (name, value) = (clean(&self.name), self.value.as_deref().map(clean));
        let line = match (self.offset, value) {
            (Some(offset), Some(value)) => format!("0x{offset:03x} {name:<20} {value}"),
            (_, Some(value)) => format!("{name}: {value}"),
            (_, None) => name,
        };
        out.push_str(&line.replace('\n', "\\n"));
        match &self.meaning {
            Some(meaning) if self.value.is_some() => {
                out.push_str(&format!(": {}", clean(meaning).replace('\n', "\\n")));
            }
            Some(source) => out.push_str(&format!(" ({source})")),
            None => {}
        }
        out.push('\n');
        self.parts
            .iter()
            .for_each(|line| line.write(out, indent + 1));
    }
}

/// Says what a file is, and what it claims.
pub fn describe(bytes: &[u8]) -> Result<Page> {
    let mut page = Page::default();
    let note = std::str::from_utf8(bytes).is_ok_and(|text| text.contains("\n\n\u{2014} "));
    if bytes.first() == Some(&b'{') && !note {
        json(&mut page, bytes)?;
    } else if bytes.first() == Some(&0xd2) {
        receipt(&mut page, bytes)?;
    } else if let Ok(text) = std::str::from_utf8(bytes) {
        plain_text(&mut page, text)?;
    } else if bytes.first() == Some(&0x30) {
        certificate_or_crl(&mut page, bytes)?;
    } else {
        quote(&mut page, bytes)?;
    }
    Ok(page)
}

fn json(page: &mut Page, file: &[u8]) -> Result<()> {
    let value: Value = serde_json::from_slice(file).context("not JSON")?;
    let content = file.strip_suffix(b"\n").unwrap_or(file);
    match value.get("v").and_then(Value::as_str) {
        Some("touchstone/bundle/1") => bundle(page, &Bundle::parse(file)?),
        Some("touchstone/keyset/1") => {
            let keyset = Keyset::parse(content)?;
            page.under("A keyset", |page| {
                keyset_fields(page, &keyset);
                Ok(())
            })
        }
        Some("touchstone/catalog/1") => {
            catalog(page, &Catalog::parse(content)?);
            Ok(())
        }
        Some("touchstone/expect/1") => {
            let e = Expect::parse(file)?;
            page.under(
                "What was asked, as the caller recorded it before it was sent",
                |page| {
                    page.field("request", format!("{} {}", e.method, e.target));
                    page.field("model", &e.model);
                    page.maybe("header length", e.header_length);
                    page.maybe("nonce", e.nonce);
                    page.maybe("guarantees asked for", e.require);
                    page.field("sha256 of the request's body", e.request_sha256);
                    page.field("asked at", rfc3339(e.asked_at));
                    Ok(())
                },
            )
        }
        Some("touchstone/response/1") => {
            let info = ResponseInfo::parse(file)?;
            page.field("An answer's status", info.status);
            page.maybe("its header length", info.header_length);
            Ok(())
        }
        Some("touchstone/session/1") if value.get("evidence").is_none() => {
            let nonce = SessionRequest::parse(file)?.nonce;
            page.field("A request for a session, nonce", hex_encode(&nonce));
            Ok(())
        }
        Some("touchstone/session/1") => session_answer(page, &SessionAnswer::parse(file)?),
        Some("touchstone/session-record/1") => session_record(page, &SessionRecord::parse(file)?),
        Some("touchstone/ohttp-record/1") => ohttp_record(page, &OhttpRecord::parse(file)?),
        Some("touchstone/collateral/1") => {
            let file = CollateralFile::parse(file)?;
            page.under(&format!("Collateral for {}", file.tee), |page| {
                collateral(page, &file.collateral)
            })
        }
        Some("touchstone/verdict/1") => verdict(page, &value),
        Some(other) if other.starts_with("touchstone/") => {
            jcs::check(content).context("not canonical")?;
            page.field(
                &format!("An object of type {other}, digest"),
                Digest::of(content),
            );
            page.block(&serde_json::to_string_pretty(&value)?);
            Ok(())
        }
        None if value.get("tee").is_some() => {
            let evidence_object = Evidence::parse(file)?;
            page.under("Attestation evidence", |page| {
                evidence(page, &evidence_object)
            })
        }
        _ => bail!("JSON, but none of our files (no \"v\" that is known)"),
    }
}

fn plain_text(page: &mut Page, text: &str) -> Result<()> {
    if text.starts_with("c2sp.org/tlog-proof@v1\n") {
        return proof(page, &TlogProof::parse(text)?);
    }
    if text.contains("-----BEGIN ") {
        return pem_file(page, text);
    }
    if text.contains("\n\n\u{2014} ") {
        let signed = SignedNote::parse(text)?;
        return match signed.text.strip_prefix('{') {
            Some(_) => advisories(page, &signed),
            None => note(page, &signed),
        };
    }
    if text.contains("touchstone/policy/1") {
        let policy =
            Policy::parse(text).map_err(|e| anyhow!("a policy that does not stand: {e}"))?;
        return policy_words(page, &policy);
    }
    bail!("text, but none of our files")
}

fn bundle(page: &mut Page, bundle: &Bundle) -> Result<()> {
    page.under("A bundle", |page| bundle_parts(page, bundle))
}

fn bundle_parts(page: &mut Page, bundle: &Bundle) -> Result<()> {
    receipt(page, &bundle.receipt)?;
    page.under("Keyset", |page| {
        keyset_fields(page, &bundle.keyset);
        Ok(())
    })?;
    page.field("Evidence objects", bundle.evidence.len());
    for object in &bundle.evidence {
        evidence_by_purpose(page, object)?;
    }
    match &bundle.proof {
        None => page.line("No proof: not sealed yet"),
        Some(text) => proof(page, &TlogProof::parse(text)?)?,
    }
    match &bundle.catalog {
        None => page.line("No catalog"),
        Some(object) => catalog(page, object),
    }
    let openings = &bundle.openings;
    let all = [
        ("request", &openings.request),
        ("response", &openings.response),
        ("inputs", &openings.inputs),
        ("outputs", &openings.outputs),
    ];
    let present: Vec<&str> = all
        .iter()
        .filter(|(_, o)| o.is_some())
        .map(|(n, _)| *n)
        .collect();
    let present = if present.is_empty() {
        "none".to_owned()
    } else {
        present.join(" ")
    };
    page.field("Openings", present);
    for attachment in &bundle.attachments {
        page.field("Attachment, not evaluated, of type", attachment.kind());
    }
    Ok(())
}

fn keyset_fields(page: &mut Page, keyset: &Keyset) {
    page.field("digest", keyset.digest());
    page.field("name, the operator's word", &keyset.name);
    page.maybe("previous keyset", keyset.previous);
    page.field(
        "lifetime",
        format!(
            "{} to {}",
            rfc3339(keyset.not_before),
            rfc3339(keyset.not_after)
        ),
    );
    page.field("receipt key", keyset.receipt_key);
    page.field("log", &keyset.log.name);
    page.maybe("TLS key (SPKI sha256)", keyset.tls_spki_sha256);
    page.field(
        "OHTTP keys",
        if keyset.ohttp_keys.is_some() {
            "present"
        } else {
            "none"
        },
    );
    page.field("build statement", keyset.software);
    page.field("settings", keyset.config);
}

fn receipt(page: &mut Page, cose: &[u8]) -> Result<()> {
    let receipt = Receipt::parse(cose)?;
    let c = &receipt.claims;
    page.under("A receipt", |page| {
        page.field("id", receipt.id());
        page.field("issuer", &c.iss);
        page.field("issued at, by the guest's clock", rfc3339(c.iat));
        page.maybe("caller's nonce", c.nonce.as_deref().map(hex_encode));
        page.field("sequence number", c.sequence);
        page.field(
            "status",
            if c.status == 0 {
                "answered".into()
            } else {
                format!("refused with {}", c.status)
            },
        );
        page.field("guarantees it was made under", c.guarantees);
        page.maybe("model", c.model_digest);
        page.maybe("configuration", c.config_digest);
        page.field("keyset", c.keyset_digest);
        page.field("catalog", format!("epoch {}, {}", c.catalog.0, c.catalog.1));
        page.field("request commitment", c.request);
        page.field("response commitment", c.response);
        page.maybe("inputs commitment", c.inputs);
        page.maybe("outputs commitment", c.outputs);
        page.field(
            "payment",
            if c.payment.is_some() {
                "present, not evaluated"
            } else {
                "none"
            },
        );
        Ok(())
    })
}

fn evidence_by_purpose(page: &mut Page, object: &Evidence) -> Result<()> {
    let purpose = object.purpose.map_or("none", |p| p.name());
    page.under(&format!("Evidence of purpose {purpose}"), |page| {
        evidence(page, object)
    })
}

fn evidence(page: &mut Page, evidence: &Evidence) -> Result<()> {
    page.field("TEE", evidence.tee);
    page.maybe("purpose", evidence.purpose);
    page.maybe("nonce", evidence.nonce.as_deref().map(hex_encode));
    match &evidence.collateral {
        None => page.line("collateral: none"),
        Some(given) => page.under("collateral:", |page| collateral(page, given))?,
    }
    if let Some(log) = &evidence.event_log {
        page.field(
            "event log",
            format!("{}, {} bytes", log.format, log.trimmed().len()),
        );
    }
    match evidence.tee {
        Tee::SevSnp => snp_report(page, &evidence.quote),
        Tee::Tdx => tdx_quote(page, &evidence.quote),
    }
}

fn collateral(page: &mut Page, collateral: &Collateral) -> Result<()> {
    let snp = match collateral {
        Collateral::SevSnp(snp) => snp,
        Collateral::Tdx(tdx) => return tdx_collateral(page, tdx),
    };
    if snp.vek.is_none() {
        page.line("no VEK certificate");
    }
    for der in snp.vek.iter().chain(&snp.chain).chain(&snp.crls) {
        certificate_or_crl(page, der)?;
    }
    if snp.crls.is_empty() {
        page.line("no CRL");
    }
    Ok(())
}

fn tdx_collateral(page: &mut Page, tdx: &TdxCollateral) -> Result<()> {
    match &tdx.tcb_info {
        Some(text) => page.structure(fields::tcb_info(text)?),
        None => page.line("no TCB info"),
    }
    match &tdx.qe_identity {
        Some(text) => page.structure(fields::qe_identity(text)?),
        None => page.line("no QE identity"),
    }
    for (name, pem) in [
        ("Issuers of the TCB info", &tdx.tcb_info_issuer_chain),
        ("Issuers of the QE identity", &tdx.qe_identity_issuer_chain),
        (
            "Issuers of the PCK's revocation list",
            &tdx.pck_crl_issuer_chain,
        ),
    ] {
        if let Some(pem) = pem {
            page.under(name, |page| pem_file(page, pem))?;
        }
    }
    for (name, der) in [
        ("The PCK CA's revocation list", &tdx.pck_crl),
        ("The root's revocation list", &tdx.root_ca_crl),
    ] {
        match der {
            Some(der) => page.under(name, |page| certificate_or_crl(page, &der.0))?,
            None => page.field(name, "none"),
        }
    }
    Ok(())
}

fn pem_file(page: &mut Page, text: &str) -> Result<()> {
    for pem in Pem::iter_from_buffer(text.as_bytes()) {
        certificate_or_crl(page, &pem.context("not PEM")?.contents)?;
    }
    Ok(())
}

fn session_answer(page: &mut Page, answer: &SessionAnswer) -> Result<()> {
    page.under("A server's answer to a request for a session", |page| {
        page.under("Keyset", |page| {
            keyset_fields(page, &answer.keyset);
            Ok(())
        })?;
        evidence_by_purpose(page, &answer.evidence)
    })
}

fn session_record(page: &mut Page, record: &SessionRecord) -> Result<()> {
    let heading = "An attested connection, as the caller recorded it at his own end";
    page.under(heading, |page| {
        page.field("opened at", rfc3339(record.opened_at));
        page.field("nonce", hex_encode(&record.nonce));
        page.maybe("TLS exporter", record.exporter.map(|e| hex_encode(&e)));
        page.field("TLS key (SPKI sha256)", record.tls_spki_sha256);
        page.under("Keyset", |page| {
            keyset_fields(page, &record.keyset);
            Ok(())
        })?;
        match &record.evidence {
            Some(object) => evidence_by_purpose(page, object),
            None => {
                page.line("No evidence over the connection: its TLS key alone is known");
                Ok(())
            }
        }
    })
}

fn ohttp_record(page: &mut Page, record: &OhttpRecord) -> Result<()> {
    let heading = "A key that requests were sealed to, as the caller recorded it at his own end";
    page.under(heading, |page| {
        page.field("attested at", rfc3339(record.opened_at));
        page.field("nonce", hex_encode(&record.nonce));
        page.field("OHTTP keys (sha256)", record.ohttp_keys_sha256);
        page.under("Keyset", |page| {
            keyset_fields(page, &record.keyset);
            Ok(())
        })?;
        evidence_by_purpose(page, &record.evidence)
    })
}

/// A raw report or quote.
fn quote(page: &mut Page, bytes: &[u8]) -> Result<()> {
    let padded = bytes.len();
    let bytes = unpadded(bytes);
    if bytes.len() < padded {
        page.field("Zero bytes after its end", padded - bytes.len());
    }
    // Version 4 or 5 and the TEE type: nothing else begins so.
    let tdx = matches!(bytes, [4 | 5, 0, _, _, 0x81, 0, 0, 0, ..]);
    if tdx || quote_report_data(Tee::Tdx, bytes).is_some() {
        return tdx_quote(page, bytes);
    }
    snp_report(page, bytes).context("none of our files, no certificate, and no SEV-SNP report")
}

fn snp_report(page: &mut Page, bytes: &[u8]) -> Result<()> {
    page.structure(fields::snp_report(bytes)?);
    Ok(())
}

fn tdx_quote(page: &mut Page, bytes: &[u8]) -> Result<()> {
    page.structure(fields::tdx_quote(bytes)?);
    Ok(())
}

fn proof(page: &mut Page, proof: &TlogProof) -> Result<()> {
    page.under("A proof of inclusion", |page| {
        page.field("index", proof.index);
        page.field("hashes", proof.hashes.len());
        note(page, &proof.note)
    })
}

fn note(page: &mut Page, note: &SignedNote) -> Result<()> {
    let checkpoint = note.checkpoint()?;
    page.under("A checkpoint", |page| {
        page.field("origin", &checkpoint.origin);
        page.field("size", checkpoint.size);
        page.field("root", checkpoint.root);
        for signature in &note.signatures {
            page.field("signature in the name of", &signature.name);
        }
        Ok(())
    })
}

/// A signed list of notices.
fn advisories(page: &mut Page, signed: &SignedNote) -> Result<()> {
    let list = ListContent::parse(signed.text.as_bytes())?;
    let heading = format!("Advisories, version {}", list.version);
    page.under(&heading, |page| {
        page.field("issued at", rfc3339(list.issued_at));
        for signature in &signed.signatures {
            page.field("signature in the name of", &signature.name);
        }
        for notice in &list.notices {
            page.under(&format!("Notice {}", notice.id), |page| {
                page.field("TEE", notice.tee);
                page.field("products", notice.products.join(" "));
                let below = notice.below.iter().map(|(name, n)| format!("{name} {n}"));
                page.field("below", below.collect::<Vec<_>>().join(", "));
                page.field("TCB states", notice.statuses.join(" "));
                page.field("advisories", notice.advisories.join(" "));
                let since = notice.not_trusted_since.map(rfc3339);
                page.field("not trusted since", since.as_deref().unwrap_or("ever"));
                page.field("words", &notice.words);
                page.field("source", &notice.source);
                Ok(())
            })?;
        }
        Ok(())
    })
}

fn catalog(page: &mut Page, catalog: &Catalog) {
    let heading = format!(
        "A catalog, epoch {}, digest {}",
        catalog.epoch,
        catalog.digest()
    );
    let filled = page.under(&heading, |page| {
        page.field("keyset", catalog.keyset_digest);
        page.field("previous", catalog.previous);
        for model in &catalog.models {
            page.under(
                &format!("{} version {}", model.name, model.version),
                |page| {
                    page.field("model", model.model_digest);
                    page.field("configuration", model.config_digest);
                    Ok(())
                },
            )?;
        }
        Ok(())
    });
    debug_assert!(filled.is_ok(), "nothing in it can fail");
}

fn policy_words(page: &mut Page, policy: &Policy) -> Result<()> {
    let answer = &policy.answer;
    page.field("A policy that stands, made from", &policy.profile);
    page.field("guarantees it demands", answer.require);
    page.field("platforms", policy.platforms.len());
    for platform in &policy.platforms {
        page.under(&format!("Platform {}", platform.tee), |page| {
            for (spec, rule) in platform.rules() {
                let rule = match rule {
                    Rule::Expect(e) => e.to_value().to_string(),
                    Rule::Waive(w) => format!("waived: {}", w.reason),
                };
                page.field(spec.id, rule);
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn verdict(page: &mut Page, value: &Value) -> Result<()> {
    let text = |key: &str| match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(" "),
        Some(other) => other.to_string(),
        None => "none".into(),
    };
    page.under("A verdict", |page| {
        for key in [
            "verdict",
            "exit",
            "simulated",
            "class",
            "deciding",
            "at",
            "achieved",
            "required",
            "covers",
            "binding",
            "measurement",
        ] {
            page.field(key, text(key));
        }
        let checks = value
            .get("checks")
            .and_then(Value::as_array)
            .context("no list of checks")?;
        for check in checks {
            let part = |key: &str| check.get(key).and_then(Value::as_str).unwrap_or_default();
            page.line(format!(
                "{}: {} {}",
                part("id"),
                part("result"),
                part("reason")
            ));
        }
        Ok(())
    })
}

/// A certificate or a revocation list, DER.
fn certificate_or_crl(page: &mut Page, der: &[u8]) -> Result<()> {
    let structure = fields::certificate(der)
        .or_else(|error| fields::crl(der).map_err(|_| error))
        .map_err(|error| anyhow!("no certificate or revocation list: {error}"))?;
    page.structure(structure);
    Ok(())
}
