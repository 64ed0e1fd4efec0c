//! What holds, and is to be changed: every file that its judgement reads, and what those files say.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use attestation_verifier::exchange::Comparison;
use attestation_verifier::ohttp::ConnectionRecord;
use attestation_verifier::{At, Binding, Verdict, events};
use serde_json::Value;
use touchstone_formats::limits::MAX_BUNDLE;
use touchstone_formats::{Bundle, Evidence, Keyset, Purpose, Receipt, Tee, TlogProof};

use super::mutant::Mutant;
use crate::commands::appraise;
use crate::commands::check::{self, Held};
use crate::files::{self, Disk, Source};
use crate::inputs::Basis;
use crate::output::Failure;

/// Files that take the place of others, by path.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The disk, and what was read from it.
#[derive(Default)]
struct Recorder(RefCell<Vec<(String, PathBuf, Vec<u8>)>>);

impl Source for Recorder {
    fn read_prefix(&self, path: &Path, what: &str, max: u64) -> Result<Vec<u8>> {
        let bytes = files::read_prefix(path, what, max)?;
        let read = (what.to_owned(), path.to_owned(), bytes.clone());
        self.0.borrow_mut().push(read);
        Ok(bytes)
    }

    fn exists(&self, path: &Path) -> bool {
        Disk.exists(path)
    }
}

/// What was read, with some files changed. Nothing else is there.
struct Changed<'a> {
    read: &'a Files,
    changed: &'a Files,
}

impl Source for Changed<'_> {
    fn read_prefix(&self, path: &Path, what: &str, max: u64) -> Result<Vec<u8>> {
        let bytes = self.changed.get(path).or_else(|| self.read.get(path));
        let mut bytes = bytes
            .cloned()
            .with_context(|| format!("cannot read {what} {}", path.display()))?;
        // One byte too many is enough for the judge to say so.
        bytes.truncate(usize::try_from(max).unwrap_or(usize::MAX).saturating_add(1));
        Ok(bytes)
    }

    fn exists(&self, path: &Path) -> bool {
        self.read.contains_key(path) || self.changed.contains_key(path)
    }
}

/// Where an evidence object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// In the bundle, at this place.
    Bundle(usize),
    /// In the record of the connection.
    Session,
    /// The file itself is one.
    File,
}

/// One file that the judgement reads.
pub struct Named {
    /// How it is called in the table.
    pub name: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A bundle, decoded, and where it is.
pub struct BundleFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub bundle: Bundle,
    /// Its receipt.
    pub receipt: Receipt,
    /// Its proof, once sealed.
    pub proof: Option<TlogProof>,
}

/// Something that is judged.
pub struct Subject {
    target: PathBuf,
    is_evidence: bool,
    held: Held,
    report_data: Option<[u8; 64]>,
    /// The time of all judgements.
    pub at: At,
    read: Files,
    /// The files, in the order in which they are read first.
    pub files: Vec<Named>,
    /// The bundle; none if this is evidence alone.
    pub bundle: Option<BundleFile>,
    /// The record of the connection, or of sealed requests, where it binds and can so be proven.
    pub session: Option<(PathBuf, ConnectionRecord)>,
    /// The file, if this is evidence alone.
    pub evidence: Option<(PathBuf, Evidence)>,
    original: Option<Meaning>,
}

/// What files say, once all is left out that no verdict rests on.
#[derive(Clone, PartialEq)]
struct Meaning {
    bundle: Option<Bundle>,
    proof: Option<TlogProof>,
    replays: Vec<Option<events::Replay>>,
    comparison: Comparison,
    session: Option<ConnectionRecord>,
    evidence: Option<Evidence>,
}

/// What a record of either kind has.
pub struct RecordParts<'a> {
    /// The caller's nonce.
    pub nonce: &'a mut [u8; 32],
    /// Unix seconds.
    pub opened_at: &'a mut u64,
    /// The keyset of the enclave at the other end.
    pub keyset: &'a mut Keyset,
    /// Evidence of it; a record of a TLS key alone has none.
    pub evidence: Option<&'a mut Evidence>,
}

impl<'a> RecordParts<'a> {
    /// Those of this record.
    pub fn of(record: &'a mut ConnectionRecord) -> Self {
        match record {
            ConnectionRecord::Tls(record) => Self {
                nonce: &mut record.nonce,
                opened_at: &mut record.opened_at,
                keyset: &mut record.keyset,
                evidence: record.evidence.as_mut(),
            },
            ConnectionRecord::Ohttp(record) => Self {
                nonce: &mut record.nonce,
                opened_at: &mut record.opened_at,
                keyset: &mut record.keyset,
                evidence: Some(&mut record.evidence),
            },
        }
    }
}

impl Subject {
    /// Reads and judges something, and decodes it if it holds.
    pub fn open(
        target: &Path,
        basis: &Basis,
        held: &Held,
        report_data: Option<[u8; 64]>,
        at: At,
    ) -> Result<(Subject, Verdict), Failure> {
        let is_evidence = is_evidence(target)?;
        if is_evidence && !held.is_empty() {
            let error =
                "this is evidence: of the options for what you hold only --report-data is about it";
            return Err(anyhow::anyhow!("{}: {error}", target.display()).into());
        }
        if !is_evidence && report_data.is_some() {
            let error =
                "the report data of a bundle is computed; --report-data is for evidence files";
            return Err(anyhow::anyhow!("{}: {error}", target.display()).into());
        }
        let recorder = Recorder::default();
        let mut subject = Subject {
            target: target.to_owned(),
            is_evidence,
            held: held.clone(),
            report_data,
            at,
            read: Files::new(),
            files: Vec::new(),
            bundle: None,
            session: None,
            evidence: None,
            original: None,
        };
        let verdict = subject.judge_from(&recorder, basis, held, at)?;
        for (what, path, bytes) in recorder.0.into_inner() {
            if let Some(name) = name_of(&what, &bytes)
                && !subject.read.contains_key(&path)
            {
                let (path, bytes) = (path.clone(), bytes.clone());
                subject.files.push(Named { name, path, bytes });
            }
            subject.read.insert(path, bytes);
        }
        if matches!(verdict.exit(), 0 | 6) {
            subject.decode(basis)?;
        }
        Ok((subject, verdict))
    }

    /// Everything that holds decodes, so a failure here is ours.
    fn decode(&mut self, basis: &Basis) -> Result<(), Failure> {
        let again = |error| anyhow::anyhow!("what held does not decode again: {error}");
        if self.is_evidence {
            let file = self.read.get(&self.target).context("the evidence")?;
            let evidence = Evidence::parse(file).map_err(again)?;
            self.evidence = Some((self.target.clone(), evidence));
        } else {
            let path = check::bundle_path(&self.target);
            let file = self.read.get(&path).context("the bundle")?;
            let bundle = Bundle::parse(file).map_err(again)?;
            let receipt = Receipt::parse(&bundle.receipt).map_err(again)?;
            let proof = bundle.proof.as_deref().map(TlogProof::parse);
            self.bundle = Some(BundleFile {
                receipt,
                proof: proof.transpose().map_err(again)?,
                bundle,
                path,
            });
            self.session = self.bound(basis)?;
        }
        self.original = self.meaning(&Files::new());
        Ok(())
    }

    /// The record of the connection, if it holds when it is demanded.
    fn bound(&self, basis: &Basis) -> Result<Option<(PathBuf, ConnectionRecord)>, Failure> {
        let source = self.source(None);
        let Some(path) = check::session_file(&source, &self.held, &self.target) else {
            return Ok(None);
        };
        let held = self.held.demanding_session(path.clone());
        let verdict = self.judge_from(&source, basis, &held, self.at)?;
        if !matches!(verdict.exit(), 0 | 6) || verdict.binding() == Binding::None {
            return Ok(None);
        }
        let record = check::session_record(&source, &self.held, &self.target)?;
        Ok(record.map(|record| (path, record)))
    }

    /// Whether there is a record of the connection that this run cannot speak of: it binds nothing here.
    pub fn unproven_session(&self) -> bool {
        self.session.is_none() && self.files.iter().any(|file| file.name == "session.json")
    }

    fn source<'a>(&'a self, changed: Option<&'a Files>) -> Changed<'a> {
        static NOTHING: Files = Files::new();
        Changed {
            read: &self.read,
            changed: changed.unwrap_or(&NOTHING),
        }
    }

    fn judge_from(
        &self,
        source: &dyn Source,
        basis: &Basis,
        held: &Held,
        at: At,
    ) -> Result<Verdict, Failure> {
        if self.is_evidence {
            let report_data = self.report_data.as_ref();
            appraise::judge_from(source, &self.target, basis, report_data, || Ok(at))
        } else {
            check::judge_from(source, &self.target, basis, held, || Ok(at))
        }
    }

    /// Judges a mutant as `check` or `appraise` would. A record of the connection that is changed has to hold, as if it
    /// were named: where a policy asks for no binding, one that does not hold would bind nothing and refuse nothing.
    pub fn judge(&self, basis: &Basis, mutant: &Mutant) -> Result<Verdict, Failure> {
        let at = mutant.at.map_or(self.at, |time| At {
            time,
            asserted: true,
        });
        let source = self.source(Some(&mutant.files));
        match &self.session {
            Some((path, _)) if mutant.files.contains_key(path) => {
                let held = self.held.demanding_session(path.clone());
                self.judge_from(&source, basis, &held, at)
            }
            _ => self.judge_from(&source, basis, &self.held, at),
        }
    }

    /// Whether the mutant says the very same as the original to who judges it.
    pub fn says_the_same(&self, mutant: &Mutant) -> bool {
        let meaning = self.meaning(&mutant.files);
        mutant.at.is_none() && meaning.is_some() && meaning == self.original
    }

    /// What the files say with these changes; none if one of them is malformed.
    fn meaning(&self, changed: &Files) -> Option<Meaning> {
        let source = self.source(Some(changed));
        let mut meaning = Meaning {
            bundle: None,
            proof: None,
            replays: Vec::new(),
            comparison: Comparison::default(),
            session: None,
            evidence: None,
        };
        if self.is_evidence {
            let file = source.read_prefix(&self.target, "", u64::MAX - 1).ok()?;
            let mut evidence = Evidence::parse(&file).ok()?;
            meaning.replays.push(without_idle_log(&mut evidence));
            // What evidence by itself says it was made for is not judged.
            (evidence.purpose, evidence.nonce) = (None, None);
            meaning.evidence = Some(evidence);
            return Some(meaning);
        }
        let path = check::bundle_path(&self.target);
        let file = source.read_prefix(&path, "", u64::MAX - 1).ok()?;
        let mut bundle = Bundle::parse(&file).ok()?;
        bundle.view = None;
        bundle.attachments.clear();
        for evidence in &mut bundle.evidence {
            meaning.replays.push(without_idle_log(evidence));
        }
        if let Some(text) = bundle.proof.take() {
            let mut proof = TlogProof::parse(&text).ok()?;
            let log = &bundle.keyset.log;
            let own = |s: &touchstone_formats::NoteSignature| {
                s.name == log.name && s.key_id == log.key_id()
            };
            proof.note.signatures.retain(own);
            meaning.proof = Some(proof);
        }
        meaning.bundle = Some(bundle);
        meaning.comparison = check::comparison(&source, &self.held, &self.target).ok()?;
        if meaning.comparison.request.is_none() {
            meaning.comparison.request_sha256 = None;
        }
        if self.session.is_some() {
            let record = check::session_record(&source, &self.held, &self.target).ok()?;
            meaning.session = record.map(|mut record| {
                let parts = RecordParts::of(&mut record);
                // Any second of the keyset's life will do; outside of it is a change of its own.
                // Clocks may differ by five minutes (formats.md §7, "Time").
                let from = parts.keyset.not_before.saturating_sub(300);
                let to = parts.keyset.not_after.min(self.at.time.saturating_add(300));
                if (from..=to).contains(parts.opened_at) {
                    *parts.opened_at = parts.keyset.not_before;
                }
                match parts.evidence {
                    Some(evidence) => meaning.replays.push(without_idle_log(evidence)),
                    None => *parts.nonce = [0; 32],
                }
                record
            });
        }
        Some(meaning)
    }

    /// All evidence objects, with a name for each.
    pub fn all_evidence(&self) -> Vec<(Slot, String, &Evidence)> {
        let mut all = Vec::new();
        if let Some(file) = &self.bundle {
            for (n, evidence) in file.bundle.evidence.iter().enumerate() {
                let name = evidence.purpose.map_or("?", Purpose::name);
                all.push((Slot::Bundle(n), format!("{name} evidence"), evidence));
            }
        }
        match &self.session {
            Some((_, ConnectionRecord::Tls(record))) => {
                let evidence = record.evidence.iter();
                all.extend(evidence.map(|e| (Slot::Session, "session evidence".to_owned(), e)));
            }
            Some((_, ConnectionRecord::Ohttp(record))) => {
                all.push((
                    Slot::Session,
                    "sealing evidence".to_owned(),
                    &record.evidence,
                ));
            }
            None => {}
        }
        if let Some((_, evidence)) = &self.evidence {
            all.push((Slot::File, "evidence".to_owned(), evidence));
        }
        all
    }

    /// The files with another evidence object in this place.
    pub fn with_evidence(&self, slot: Slot, evidence: Evidence) -> Option<Files> {
        match slot {
            Slot::Bundle(n) => self.with_bundle(|bundle| {
                if let Some(place) = bundle.evidence.get_mut(n) {
                    *place = evidence;
                }
            }),
            Slot::Session => self.with_session(|record| {
                if let Some(place) = RecordParts::of(record).evidence {
                    *place = evidence;
                }
            }),
            Slot::File => {
                let (path, _) = self.evidence.as_ref()?;
                Some(Files::from([(path.clone(), evidence.to_file())]))
            }
        }
    }

    /// The files with a bundle that was changed.
    pub fn with_bundle(&self, change: impl FnOnce(&mut Bundle)) -> Option<Files> {
        let file = self.bundle.as_ref()?;
        let mut bundle = file.bundle.clone();
        change(&mut bundle);
        Some(Files::from([(file.path.clone(), bundle.to_file())]))
    }

    /// The files with another record of the connection.
    pub fn with_session(&self, change: impl FnOnce(&mut ConnectionRecord)) -> Option<Files> {
        let (path, record) = self.session.as_ref()?;
        let mut record = record.clone();
        change(&mut record);
        Some(Files::from([(path.clone(), record.to_file().ok()?)]))
    }

    /// The file of this name, if the judgement reads it.
    pub fn file(&self, name: &str) -> Option<&Named> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Writes the files of a mutant into a folder that must not exist yet.
    pub fn write(&self, mutant: &Mutant, folder: &Path) -> Result<()> {
        std::fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for (path, original) in &self.read {
            let bytes = mutant.files.get(path).unwrap_or(original);
            let Some(name) = path.file_name() else {
                bail!("{} has no name", path.display());
            };
            let mut to = folder.join(name);
            // Files out of different folders may have one name.
            while to.exists() {
                to.as_mut_os_string().push("_");
            }
            files::write_new(&to, bytes)?;
        }
        Ok(())
    }
}

/// Whether a file is evidence by itself. What is neither that nor a bundle is judged as a bundle, which says what is wrong.
fn is_evidence(target: &Path) -> Result<bool> {
    if target.is_dir() {
        return Ok(false);
    }
    let file = files::read_prefix(target, "file", MAX_BUNDLE as u64)?;
    let value: Value = serde_json::from_slice(&file).unwrap_or_default();
    Ok(value.get("v").is_none() && value.get("tee").is_some())
}

/// What an event log comes to, which is what counts of it; the log itself is taken out. Of a SEV-SNP report nothing rests
/// on one. A log that does not replay stays. Types of events are in no digest, and anybody's word.
fn without_idle_log(evidence: &mut Evidence) -> Option<events::Replay> {
    let log = evidence.event_log.as_ref()?;
    let mut replay = events::replay(log).ok();
    for event in replay.iter_mut().flat_map(|replay| &mut replay.events) {
        event.kind = 0;
    }
    if evidence.tee == Tee::SevSnp {
        evidence.event_log = None;
        return None;
    }
    if replay.is_some() {
        evidence.event_log = None;
    }
    replay
}

/// The name of a file in the table; none for what is not to be changed.
fn name_of(what: &str, bytes: &[u8]) -> Option<&'static str> {
    match what {
        "bundle" => Some("bundle.json"),
        "evidence" => Some("evidence file"),
        "request" => Some("request"),
        "response" => Some("response"),
        "tensor" => Some("tensor"),
        "record" => {
            let value: Value = serde_json::from_slice(bytes).ok()?;
            let v = value.get("v")?.as_str()?;
            match v.rsplit_once('/')?.0 {
                "touchstone/expect" => Some("expect.json"),
                "touchstone/response" => Some("response.json"),
                "touchstone/session-record" | "touchstone/ohttp-record" => Some("session.json"),
                _ => None,
            }
        }
        _ => None,
    }
}
