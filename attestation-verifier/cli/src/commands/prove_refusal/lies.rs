//! Lies that are signed: what somebody can do who holds everything but the keys that he would need. The keys are made on
//! the spot, here: Ed25519 in the enclave's place, ECDSA in the chip's, the quoting enclave's and the vendor's.

use attestation_verifier::Binding;
use attestation_verifier::exchange::SessionRecord;
use attestation_verifier::ohttp::{ConnectionRecord, OhttpRecord};
use attestation_verifier::parse::tdx::quote::Quote;
use ring::digest::{SHA256, digest};
use ring::signature::Ed25519KeyPair;
use touchstone_formats::merkle::{EntryKind, RightEdge, append_batch, entry, leaf_hash};
use touchstone_formats::report_data::{
    bind_boot, bind_checkpoint, bind_receipt, bind_session, report_data,
};
use touchstone_formats::text::HexBytes;
use touchstone_formats::{
    Bundle, Claims, Collateral, Digest, Evidence, LogSigner, NoteSignature, Purpose, Receipt,
    ReceiptKey, ReceiptSigner, SignedNote, TlogProof,
};

use super::fields::CLAIM_CHANGES;
use super::mutant::{Kind, Mutant, Numbers};
use super::places::SNP_SIGNED;
use super::quote::{self, Pieces};
use super::subject::{BundleFile, Files, Subject};
use super::x509::{Key, pem, reissued, reissued_list, rekeyed};

/// How far down a liar signs evidence himself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// Nothing: the old signature stays.
    Nothing,
    /// The report or quote, by a key of his own; the certificate is the genuine one.
    Report,
    /// TDX: the quoting enclave's report, too, which vouches for that key.
    QuotingEnclave,
    /// The certificate of that key, too, its issuer's signature left standing.
    Certificate,
    /// A vendor of his own, of the same names.
    Vendor,
}

impl Depth {
    const ALL: [Depth; 5] = [
        Depth::Nothing,
        Depth::Report,
        Depth::QuotingEnclave,
        Depth::Certificate,
        Depth::Vendor,
    ];

    fn words(self) -> &'static str {
        match self {
            Depth::Nothing => "under the old signature",
            Depth::Report => "signed by a key of the liar's",
            Depth::QuotingEnclave => "signed by a key that a QE report of the liar's vouches for",
            Depth::Certificate => "signed by a key in a forged certificate",
            Depth::Vendor => "signed under a vendor chain of the liar's, of the same names",
        }
    }
}

/// The liar's keys.
struct Liar {
    receipts: ReceiptSigner,
    log: LogSigner,
    log_seed: [u8; 32],
    p256: [Key; 5],
    p384: [Key; 3],
}

impl Liar {
    fn new(subject: &Subject, numbers: &mut Numbers) -> Option<Liar> {
        let name = subject
            .bundle
            .as_ref()
            .map(|b| b.bundle.keyset.log.name.as_str());
        let prefix = name.and_then(|name| Some(name.rsplit_once('/')?.0));
        let log_seed = numbers.bytes();
        Some(Liar {
            receipts: ReceiptSigner::from_seed(&numbers.bytes()).ok()?,
            log: LogSigner::from_seed(&log_seed, prefix.unwrap_or("log.example")).ok()?,
            log_seed,
            p256: [
                Key::p256()?,
                Key::p256()?,
                Key::p256()?,
                Key::p256()?,
                Key::p256()?,
            ],
            p384: [Key::p384()?, Key::p384()?, Key::p384()?],
        })
    }
}

/// All of this kind.
pub fn mutants(subject: &Subject, numbers: &mut Numbers) -> Vec<Mutant> {
    let mut all = Vec::new();
    let Some(liar) = Liar::new(subject, numbers) else {
        return all;
    };
    if let Some(file) = &subject.bundle {
        receipts(subject, file, &liar, numbers, &mut all);
        checkpoints(subject, file, &liar, &mut all);
        enclaves(subject, file, &liar, &mut all);
    }
    connections(subject, &liar, &mut all);
    reports(subject, &liar, numbers, &mut all);
    collateral(subject, &liar, &mut all);
    all
}

fn add(all: &mut Vec<Mutant>, place: &str, change: impl Into<String>, files: Option<Files>) {
    all.extend(files.map(|files| Mutant::new(Kind::Signed, place, change, files)));
}

/// The receipt, changed or not, signed by a key that is not the keyset's.
fn receipts(
    subject: &Subject,
    file: &BundleFile,
    liar: &Liar,
    numbers: &mut Numbers,
    all: &mut Vec<Mutant>,
) {
    let unchanged = ("as it was", (|_, _| {}) as fn(&mut Claims, &mut Numbers));
    for (what, change) in [unchanged].into_iter().chain(CLAIM_CHANGES) {
        let mut claims = file.receipt.claims.clone();
        change(&mut claims, numbers);
        let receipt = liar.receipts.sign(&claims);
        let files = subject.with_bundle(|b| b.receipt = receipt);
        add(
            all,
            "receipt",
            format!("{what}; signed by a key of the liar's"),
            files,
        );
    }
    // With the hint of the genuine key.
    let mut hinted = liar.receipts.sign(&file.receipt.claims);
    if let Some(hint) = hinted.get_mut(8..16) {
        hint.copy_from_slice(&file.receipt.kid());
        let files = subject.with_bundle(|b| b.receipt = hinted);
        add(
            all,
            "receipt",
            "signed by a key of the liar's, under the genuine key's id",
            files,
        );
    }
    // With a keyset that names the liar's key.
    let mut bundle = file.bundle.clone();
    bundle.keyset.receipt_key = ReceiptKey(liar.receipts.public_key());
    let mut claims = file.receipt.claims.clone();
    claims.keyset_digest = bundle.keyset.digest();
    bundle.receipt = liar.receipts.sign(&claims);
    let files = subject.with_bundle(|b| *b = bundle);
    add(
        all,
        "keyset",
        "the liar's receipt key, and the receipt signed by it",
        files,
    );
}

/// A checkpoint signed by a key that is not the keyset's, over this tree and over others.
fn checkpoints(subject: &Subject, file: &BundleFile, liar: &Liar, all: &mut Vec<Mutant>) {
    let Some(proof) = &file.proof else { return };
    let Ok(genuine) = proof.note.checkpoint() else {
        return;
    };
    let log = &file.bundle.keyset.log;
    let signed = |text: String| {
        let pair = Ed25519KeyPair::from_seed_unchecked(&liar.log_seed).ok()?;
        Some(SignedNote {
            signatures: vec![NoteSignature {
                name: log.name.clone(),
                key_id: log.key_id(),
                signature: pair.sign(text.as_bytes()).as_ref().to_vec(),
            }],
            text,
        })
    };
    let put = |proof: TlogProof| subject.with_bundle(|b| b.proof = Some(proof.to_string()));
    let files = signed(genuine.text()).and_then(|note| {
        put(TlogProof {
            note,
            ..proof.clone()
        })
    });
    add(
        all,
        "checkpoint",
        "signed by a key of the liar's, under the log's name",
        files,
    );

    let (tree, root) = small_tree(file, &file.bundle.receipt, file.bundle.keyset.digest());
    let other = touchstone_formats::Checkpoint {
        size: tree.index + 1,
        root,
        ..genuine
    };
    let files = signed(other.text()).and_then(|note| {
        put(TlogProof {
            note,
            ..tree.clone()
        })
    });
    add(
        all,
        "checkpoint",
        "a tree of the liar's, signed by him under the log's name",
        files,
    );

    // The same under a log of his own, and a keyset that names it.
    let checkpoint = liar.log.checkpoint(tree.index + 1, root);
    if let Ok(note) = SignedNote::parse(&liar.log.sign(&checkpoint)) {
        let own = TlogProof { note, ..tree };
        let files = put(own.clone());
        add(
            all,
            "checkpoint",
            "the liar's log in the place of the keyset's",
            files,
        );
        let files = subject.with_bundle(|b| {
            b.proof = Some(own.to_string());
            b.keyset.log = liar.log.log_key();
        });
        add(
            all,
            "keyset",
            "the liar's log key, and a checkpoint signed by it",
            files,
        );
    }
}

/// A log of what has to be in one, with this receipt at its place; the note of the proof is still the old one.
fn small_tree(file: &BundleFile, receipt: &[u8], keyset: Digest) -> (TlogProof, Digest) {
    let claims = &file.receipt.claims;
    let filler = |n: u64| leaf_hash(&entry(EntryKind::Receipt, Digest::of(&n.to_le_bytes())));
    let mut leaves = vec![
        leaf_hash(&entry(EntryKind::Boot, keyset)),
        leaf_hash(&entry(EntryKind::Catalog, claims.catalog.1)),
    ];
    // A receipt that claims a later place than this gets it all the same: another check notices first.
    leaves.extend((0..claims.sequence.min(4_096)).map(filler));
    let index = leaves.len();
    leaves.push(leaf_hash(&entry(EntryKind::Receipt, Digest::of(receipt))));
    let (edge, proofs) = append_batch(&RightEdge::new(), &leaves);
    let note = file.proof.as_ref().map(|proof| proof.note.clone());
    let proof = TlogProof {
        index: index as u64,
        hashes: proofs.proof(index),
        note: note.unwrap_or(SignedNote {
            text: String::new(),
            signatures: Vec::new(),
        }),
    };
    (proof, edge.root())
}

/// A bundle of an enclave that is no enclave: keyset, receipt, catalog and log made anew, all of one piece; and evidence about
/// them as good as the liar can make it.
fn enclaves(subject: &Subject, file: &BundleFile, liar: &Liar, all: &mut Vec<Mutant>) {
    let mut bundle = file.bundle.clone();
    bundle.keyset.receipt_key = ReceiptKey(liar.receipts.public_key());
    bundle.keyset.log = liar.log.log_key();
    let mut claims = file.receipt.claims.clone();
    claims.keyset_digest = bundle.keyset.digest();
    if let Some(catalog) = &mut bundle.catalog {
        catalog.keyset_digest = claims.keyset_digest;
        claims.catalog.1 = catalog.digest();
    }
    bundle.receipt = liar.receipts.sign(&claims);
    if bundle.proof.is_some() {
        let (tree, root) = small_tree(file, &bundle.receipt, claims.keyset_digest);
        let checkpoint = liar.log.checkpoint(tree.index + 1, root);
        let Ok(note) = SignedNote::parse(&liar.log.sign(&checkpoint)) else {
            return;
        };
        bundle.proof = Some(TlogProof { note, ..tree }.to_string());
    }
    let files = subject.with_bundle(|b| *b = bundle.clone());
    add(
        all,
        "bundle.json",
        "keyset, receipt and log of the liar's; the evidence is genuine",
        files,
    );
    for depth in Depth::ALL {
        let evidence = bundle.evidence.iter().map(|e| {
            let data = about(&bundle, e)?;
            forged(e, depth, liar, |quote| {
                quote::set_report_data(e.tee, quote, &data)
            })
        });
        let Some(evidence) = evidence.collect::<Option<Vec<_>>>() else {
            continue;
        };
        let files = subject.with_bundle(|b| {
            *b = bundle.clone();
            b.evidence = evidence;
        });
        let what = format!("an enclave of the liar's; its evidence {}", depth.words());
        add(all, "bundle.json", what, files);
    }
}

/// REPORT_DATA of evidence in this bundle.
fn about(bundle: &Bundle, evidence: &Evidence) -> Option<[u8; 64]> {
    let receipt = Receipt::parse(&bundle.receipt).ok()?;
    let (nonce, bind) = match evidence.purpose? {
        Purpose::Boot => (None, bind_boot()),
        Purpose::Checkpoint => {
            let proof = TlogProof::parse(bundle.proof.as_deref()?).ok()?;
            (None, bind_checkpoint(&proof.note.text))
        }
        Purpose::Receipt => (receipt.claims.nonce.clone(), bind_receipt(receipt.cose())),
        Purpose::Session => return None,
    };
    let (purpose, keyset) = (evidence.purpose?, bundle.keyset.digest());
    Some(report_data(purpose, keyset, nonce.as_deref(), bind))
}

/// A connection to somebody else, or a key of his, with evidence as good as he can make it.
fn connections(subject: &Subject, liar: &Liar, all: &mut Vec<Mutant>) {
    match &subject.session {
        Some((_, ConnectionRecord::Tls(record))) => sessions(subject, record, liar, all),
        Some((_, ConnectionRecord::Ohttp(record))) => keys(subject, record, liar, all),
        None => {}
    }
}

fn sessions(subject: &Subject, record: &SessionRecord, liar: &Liar, all: &mut Vec<Mutant>) {
    let (Some(evidence), Some(_)) = (&record.evidence, record.exporter) else {
        return;
    };
    let exporter = Digest::of(b"the liar's connection").0;
    let mut other = record.clone();
    other.exporter = Some(exporter);
    let bind = bind_session(other.tls_spki_sha256, &exporter);
    let keyset = other.keyset.digest();
    let data = report_data(Purpose::Session, keyset, Some(&other.nonce), bind);
    for depth in Depth::ALL {
        let set = |quote: &mut [u8]| quote::set_report_data(evidence.tee, quote, &data);
        let own = forged(evidence, depth, liar, set).map(|evidence| {
            ConnectionRecord::Tls(SessionRecord {
                evidence: Some(evidence),
                ..other.clone()
            })
        });
        let files = own.and_then(|own| subject.with_session(|r| *r = own));
        let what = format!(
            "another connection ({}); evidence {}",
            Binding::TlsExporter,
            depth.words()
        );
        add(all, "session.json", what, files);
    }
}

/// Where the public key of a configuration stands, in the first (RFC 9458 §3).
const OHTTP_KEY: std::ops::Range<usize> = 5..37;

/// The liar's key in the keyset, or evidence for another nonce. His key is noted as the one that was sealed to.
fn keys(subject: &Subject, record: &OhttpRecord, liar: &Liar, all: &mut Vec<Mutant>) {
    let mut keyed = record.clone();
    let keys = keyed.keyset.ohttp_keys.as_mut().map(|keys| {
        if let Some(key) = keys.0.get_mut(OHTTP_KEY) {
            // Any 32 bytes are a public key of X25519.
            key.copy_from_slice(&Digest::of(b"the liar's key").0);
        }
        Digest::of(&keys.0)
    });
    let Some(keys) = keys else { return };
    keyed.ohttp_keys_sha256 = keys;
    let mut renonced = record.clone();
    renonced.nonce = Digest::of(b"another caller's nonce").0;
    renonced.evidence.nonce = Some(renonced.nonce.to_vec());
    for (what, other) in [("a key of the liar's", keyed), ("another nonce", renonced)] {
        let put = |evidence| {
            let own = OhttpRecord {
                evidence,
                ..other.clone()
            };
            subject.with_session(|r| *r = ConnectionRecord::Ohttp(own))
        };
        let place = "session.json";
        let change = format!("{what}; the evidence is genuine");
        add(all, place, change, put(other.evidence.clone()));
        let keyset = other.keyset.digest();
        let data = report_data(Purpose::Boot, keyset, Some(&other.nonce), bind_boot());
        for depth in Depth::ALL {
            let set = |quote: &mut [u8]| quote::set_report_data(other.evidence.tee, quote, &data);
            let files = forged(&other.evidence, depth, liar, set).and_then(put);
            let binding = Binding::OhttpKey;
            let what = format!("{what} ({binding}); evidence {}", depth.words());
            add(all, place, what, files);
        }
    }
}

/// Fields of reports that a liar would want to be otherwise.
fn reports(subject: &Subject, liar: &Liar, numbers: &mut Numbers, all: &mut Vec<Mutant>) {
    for (slot, name, evidence) in subject.all_evidence() {
        let depths = Depth::ALL.into_iter().skip(1);
        // As it was, then with one field changed.
        let nothing = std::iter::once(("as it was", 0..0));
        let changes = nothing.chain(quote::fields(evidence.tee, &evidence.quote));
        for (depth, (field, range)) in depths.cycle().zip(changes.cycle()).take(24) {
            let own = forged(evidence, depth, liar, |quote| {
                if range.is_empty() {
                    return Some(());
                }
                quote::set_other(field, quote.get_mut(range)?, numbers)
            });
            let files = own.and_then(|evidence| subject.with_evidence(slot, evidence));
            add(all, &name, format!("{field}; {}", depth.words()), files);
        }
    }
}

/// Evidence whose quote was changed and signed again. None where this depth means nothing for the TEE.
fn forged(
    evidence: &Evidence,
    depth: Depth,
    liar: &Liar,
    change: impl FnOnce(&mut [u8]) -> Option<()>,
) -> Option<Evidence> {
    let mut evidence = evidence.clone();
    match &evidence.collateral {
        Some(Collateral::SevSnp(_)) => forged_report(&mut evidence, depth, liar, change)?,
        Some(Collateral::Tdx(_)) => forged_quote(&mut evidence, depth, liar, change)?,
        None => return None,
    }
    Some(evidence)
}

fn forged_report(
    evidence: &mut Evidence,
    depth: Depth,
    liar: &Liar,
    change: impl FnOnce(&mut [u8]) -> Option<()>,
) -> Option<()> {
    let [chip, intermediate, root] = &liar.p384;
    change(evidence.quote.get_mut(..SNP_SIGNED)?)?;
    if depth == Depth::QuotingEnclave {
        return None;
    }
    if depth != Depth::Nothing {
        let signature = chip.sign(evidence.quote.get(..SNP_SIGNED)?)?;
        let (r, s) = signature.split_at_checked(48)?;
        // r and s, little-endian, 72 bytes each (AMD 56860, SIGNATURE).
        for (at, number) in [(SNP_SIGNED, r), (SNP_SIGNED + 72, s)] {
            let place = evidence.quote.get_mut(at..at + 48)?;
            place
                .iter_mut()
                .zip(number.iter().rev())
                .for_each(|(to, from)| *to = *from);
        }
    }
    let Some(Collateral::SevSnp(snp)) = &mut evidence.collateral else {
        return None;
    };
    let vek = snp.vek.as_mut()?;
    match depth {
        Depth::Certificate => *vek = rekeyed(vek, chip)?,
        Depth::Vendor => {
            *vek = reissued(vek, chip, intermediate)?;
            for (n, certificate) in snp.chain.iter_mut().enumerate() {
                let key = if n == 0 { intermediate } else { root };
                *certificate = reissued(certificate, key, root)?;
            }
        }
        _ => {}
    }
    Some(())
}

fn forged_quote(
    evidence: &mut Evidence,
    depth: Depth,
    liar: &Liar,
    change: impl FnOnce(&mut [u8]) -> Option<()>,
) -> Option<()> {
    let [attestation, pck, ca, root, signer] = &liar.p256;
    let mut signed = evidence.quote.clone();
    change(&mut signed)?;
    let mut pieces = Pieces::of(&evidence.quote)?;
    let end = pieces.signed.len();
    pieces.signed = signed.get(..end)?.to_vec();
    if depth != Depth::Nothing {
        pieces.attestation_key = attestation.point().get(1..)?.try_into().ok()?;
        pieces.signature = attestation.sign(&pieces.signed)?.try_into().ok()?;
    }
    if matches!(
        depth,
        Depth::QuotingEnclave | Depth::Certificate | Depth::Vendor
    ) {
        let bound = [pieces.attestation_key.as_slice(), &pieces.qe_auth_data].concat();
        let report_data = pieces.qe_report.get_mut(320..352)?;
        report_data.copy_from_slice(digest(&SHA256, &bound).as_ref());
        pieces.qe_report_signature = pck.sign(&pieces.qe_report)?.try_into().ok()?;
    }
    if matches!(depth, Depth::Certificate | Depth::Vendor) {
        let chain = Quote::parse(&evidence.quote).ok()?.pck_chain;
        let own = chain.iter().enumerate().map(|(n, certificate)| {
            let der = certificate.der();
            match (n, depth) {
                (0, Depth::Certificate) => rekeyed(der, pck),
                (_, Depth::Certificate) => Some(der.to_vec()),
                (0, _) => reissued(der, pck, ca),
                (1, _) => reissued(der, ca, root),
                _ => reissued(der, root, root),
            }
        });
        pieces.pck_chain = pem(&own.collect::<Option<Vec<_>>>()?).into_bytes();
    }
    evidence.quote = pieces.quote()?;
    if depth == Depth::Vendor {
        let Some(Collateral::Tdx(tdx)) = &mut evidence.collateral else {
            return None;
        };
        resigned(tdx, signer, ca, root)?;
    }
    Some(())
}

/// All of Intel's collateral, signed by a vendor of the liar's.
fn resigned(
    tdx: &mut touchstone_formats::TdxCollateral,
    signer: &Key,
    ca: &Key,
    root: &Key,
) -> Option<()> {
    for (text, signature, chain) in [
        (
            &tdx.tcb_info,
            &mut tdx.tcb_info_signature,
            &mut tdx.tcb_info_issuer_chain,
        ),
        (
            &tdx.qe_identity,
            &mut tdx.qe_identity_signature,
            &mut tdx.qe_identity_issuer_chain,
        ),
    ] {
        if let Some(text) = text {
            *signature = Some(HexBytes(signer.sign(text.as_bytes())?));
        }
        if let Some(chain) = chain {
            *chain = reissued_chain(chain, signer, root)?;
        }
    }
    if let Some(list) = &mut tdx.pck_crl {
        list.0 = reissued_list(&list.0, ca)?;
    }
    if let Some(chain) = &mut tdx.pck_crl_issuer_chain {
        *chain = reissued_chain(chain, ca, root)?;
    }
    if let Some(list) = &mut tdx.root_ca_crl {
        list.0 = reissued_list(&list.0, root)?;
    }
    Some(())
}

/// A PEM chain of a certificate and its root, both with keys of the liar's.
fn reissued_chain(chain: &str, first: &Key, root: &Key) -> Option<String> {
    let mut own = Vec::new();
    for (n, block) in x509_parser::pem::Pem::iter_from_buffer(chain.as_bytes()).enumerate() {
        let key = if n == 0 { first } else { root };
        own.push(reissued(&block.ok()?.contents, key, root)?);
    }
    Some(pem(&own))
}

/// Intel's texts with something else in them, signed by the liar: alone, and with a certificate of his own.
fn collateral(subject: &Subject, liar: &Liar, all: &mut Vec<Mutant>) {
    let [_, _, ca, root, signer] = &liar.p256;
    for (slot, name, evidence) in subject.all_evidence() {
        let Some(Collateral::Tdx(tdx)) = &evidence.collateral else {
            continue;
        };
        let mut put = |what: &str, tdx: touchstone_formats::TdxCollateral| {
            let evidence = Evidence {
                collateral: Some(Collateral::Tdx(tdx)),
                ..evidence.clone()
            };
            add(all, &name, what, subject.with_evidence(slot, evidence));
        };
        let sign = |text: &Option<String>| {
            let signature = signer.sign(text.as_ref()?.as_bytes())?;
            Some(HexBytes(signature))
        };
        let mut own = tdx.clone();
        own.tcb_info_signature = sign(&own.tcb_info);
        put("TCB info signed by a key of the liar's", own);
        let mut own = tdx.clone();
        own.qe_identity_signature = sign(&own.qe_identity);
        put("QE identity signed by a key of the liar's", own);
        let mut own = tdx.clone();
        if resigned(&mut own, signer, ca, root).is_some() {
            put("all of it signed under a vendor chain of the liar's", own);
        }
        for (what, list, key) in [("PCK", &tdx.pck_crl, ca), ("root", &tdx.root_ca_crl, root)] {
            let list = list.as_ref().and_then(|list| reissued_list(&list.0, key));
            let Some(list) = list.map(HexBytes) else {
                continue;
            };
            let mut own = tdx.clone();
            match what {
                "PCK" => own.pck_crl = Some(list),
                _ => own.root_ca_crl = Some(list),
            }
            put(
                &format!("{what} revocation list signed by a key of the liar's"),
                own,
            );
        }
    }
}
