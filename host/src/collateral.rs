//! What makes quotes verifiable, from a folder that the operator keeps current.
//!
//! Collateral proves itself (formats.md §7), so nothing here judges it: wrong files make bundles that
//! verifiers refuse, never bundles that they wrongly accept. It is attached when a bundle is served,
//! always the newest there is, and never stored: what was sealed years ago goes out with the
//! revocation lists of today. `GET /v1/collateral` gives it by itself, to callers who have evidence from
//! the enclave, which knows none.

pub mod platform;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use hyper::{Method, Response, StatusCode};
use thiserror::Error;
use touchstone_formats::{
    evidence::{Collateral, CollateralFile, SnpCollateral, Tee},
    jcs,
    limits::{MAX_COLLATERAL, MAX_COLLATERAL_ITEMS},
    text::base64_decode,
};

use crate::{
    outlook::Outlook,
    problem::{Problem, json, preflight},
};

/// Where the collateral is to be had by itself.
pub const PATH: &str = "/v1/collateral";
/// TDX's collateral, in the folder.
const TDX: &str = "tdx.json";
/// What `touchstone collateral serve` writes beside the collateral that it keeps.
const OUTLOOK: &str = "status.json";

/// Why a folder could not be read as collateral.
#[derive(Debug, Error)]
pub enum CollateralError {
    /// The system said no.
    #[error("{path}: {error}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Neither DER nor PEM.
    #[error("{path}: found {found}, expected one DER object, or PEM")]
    Encoding {
        /// Which file.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// No JSON object with TDX's members and no others.
    #[error("{path}: expected the members of TDX collateral in one JSON object: {reason}")]
    Tdx {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// More than bundles may hold.
    #[error("{what}: found {found}, at most {limit} can stand in a bundle")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        found: usize,
        /// The bound (formats.md, "Conventions").
        limit: usize,
    },
}

/// The collateral as it is now. Cheap to share; read for every bundle served.
#[derive(Debug)]
pub struct CollateralFolder {
    folder: Option<PathBuf>,
    /// For SEV-SNP evidence; `None`: there is none.
    snp: RwLock<Option<Written>>,
    /// For TDX evidence.
    tdx: RwLock<Option<Written>>,
    /// The VEK that the platform gave, for a folder that has none.
    platform_vek: RwLock<Option<Vec<u8>>>,
    lacks_vek: AtomicBool,
    outlook: Outlook,
    seen: RwLock<Option<Vec<Stamp>>>,
    warned: RwLock<Option<Instant>>,
}

/// Collateral as it goes out.
#[derive(Debug, Clone)]
struct Written {
    /// A [`CollateralFile`].
    file: Bytes,
    /// Its `collateral` member, which evidence has too.
    member: Arc<str>,
}

/// What of a file tells that it has changed.
type Stamp = (PathBuf, Option<SystemTime>, u64);

impl CollateralFolder {
    /// From when on verifiers refuse the platform, in Unix time, as far as `status.json` says; 0: not known.
    pub fn refused_at(&self) -> i64 {
        let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok();
        let at = self.outlook.refused().and_then(since);
        at.and_then(|at| i64::try_from(at.as_secs()).ok())
            .unwrap_or(0)
    }

    /// Reads the folder for the first time. What cannot be read is logged, as later.
    pub fn open(folder: Option<PathBuf>) -> Arc<Self> {
        let collateral = Arc::new(Self {
            folder,
            snp: RwLock::default(),
            tdx: RwLock::default(),
            platform_vek: RwLock::default(),
            lacks_vek: AtomicBool::new(false),
            outlook: Outlook::default(),
            seen: RwLock::default(),
            warned: RwLock::default(),
        });
        match &collateral.folder {
            None => tracing::warn!(
                "no collateral.folder is set: bundles will not be verifiable without help"
            ),
            Some(_) => collateral.refresh(),
        }
        collateral
    }

    /// Reads the folder again if anything in it has changed. While it cannot be read as a whole, what
    /// was read before stays in use.
    pub fn refresh(&self) {
        let Some(folder) = &self.folder else { return };
        self.outlook.refresh(&folder.join(OUTLOOK));
        let stamps = stamps(folder);
        if self
            .seen
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            == Some(&stamps)
        {
            return;
        }
        let tdx = read_tdx(folder);
        let snp = read_snp(folder).and_then(|mut snp| {
            let lacks = snp.vek.is_none() && matches!(tdx, Ok(None));
            self.lacks_vek.store(lacks, Relaxed);
            if lacks {
                let given = self.platform_vek.read();
                snp.vek = given.unwrap_or_else(PoisonError::into_inner).clone();
            }
            bounded(snp).map(|snp| (snp, lacks))
        });
        let snp = snp.map(|(snp, lacks)| {
            tracing::info!(
                folder = %folder.display(),
                vek = snp.vek.is_some(),
                from_platform = lacks && snp.vek.is_some(),
                chain = snp.chain.len(),
                crls = snp.crls.len(),
                "collateral read"
            );
            let there = snp != SnpCollateral::default();
            there.then_some(CollateralFile {
                tee: Tee::SevSnp,
                collateral: Collateral::SevSnp(snp),
            })
        });
        let tdx = tdx.inspect(|tdx| {
            if tdx.is_some() {
                tracing::info!(folder = %folder.display(), tdx = true, "collateral read");
            }
        });
        if matches!((&snp, &tdx), (Ok(None), Ok(None))) {
            tracing::warn!(folder = %folder.display(), "there is no collateral");
        }
        if matches!((&snp, &tdx), (Ok(Some(_)), Ok(Some(_)))) {
            tracing::warn!(
                folder = %folder.display(),
                "there is collateral for SEV-SNP and for TDX: evidence gets its own, and {PATH} gives that for SEV-SNP"
            );
        }
        for (read, into) in [(snp, &self.snp), (tdx, &self.tdx)] {
            match read {
                Ok(file) => {
                    *into.write().unwrap_or_else(PoisonError::into_inner) = file.and_then(written);
                }
                Err(error) => {
                    tracing::error!(%error, "collateral not read; what was read before stays in use")
                }
            }
        }
        *self.seen.write().unwrap_or_else(PoisonError::into_inner) = Some(stamps);
    }

    /// Whether the folder has no VEK, and is not for TDX, which needs none.
    pub fn lacks_vek(&self) -> bool {
        self.lacks_vek.load(Relaxed)
    }

    /// The platform's own VEK, for as long as the folder has none; in use with the next [`Self::refresh`].
    pub fn offer_vek(&self, vek: Vec<u8>) {
        let mut given = self
            .platform_vek
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if given.as_ref() != Some(&vek) {
            *given = Some(vek);
            *self.seen.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Whether there is a folder to look at.
    pub fn is_watched(&self) -> bool {
        self.folder.is_some()
    }

    /// The evidence's JSON with the collateral that its TEE needs; without, when there is none.
    /// `stored` is canonical JSON of evidence without collateral. In canonical order `collateral` is
    /// the first of its members, and `tee` the last.
    pub fn attach(&self, stored: &str) -> String {
        let written = if stored.ends_with("\"tee\":\"sev-snp\"}") {
            read(&self.snp)
        } else if stored.ends_with("\"tee\":\"tdx\"}") {
            read(&self.tdx)
        } else {
            None
        };
        match (written, stored.strip_prefix('{')) {
            (Some(Written { member, .. }), Some(members)) => {
                format!("{{\"collateral\":{member},{members}")
            }
            _ => {
                self.warn();
                stored.to_owned()
            }
        }
    }

    /// Answers a request for the collateral by itself. A preflight too: the enclave knows no such target.
    ///
    /// # Errors
    /// A [`Problem`] for the caller.
    pub fn answer(&self, method: &Method, query: Option<&str>) -> Result<Response<Bytes>, Problem> {
        if method == Method::OPTIONS {
            return Ok(preflight());
        }
        Problem::unless_read(method)?;
        if query.is_some() {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "the collateral's address has no query",
            ));
        }
        match read(&self.snp).or_else(|| read(&self.tdx)) {
            Some(Written { file, .. }) => Ok(json(StatusCode::OK, file)),
            None => Err(Problem::new(
                StatusCode::NOT_FOUND,
                "this host has no collateral: its operator has to put certificates and revocation lists \
                 into collateral.folder",
            )),
        }
    }

    fn warn(&self) {
        const EVERY: Duration = Duration::from_secs(60);
        let mut warned = self.warned.write().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!("bundles are served without collateral: verifiers will exit 5");
        }
    }
}

fn read(written: &RwLock<Option<Written>>) -> Option<Written> {
    written
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

fn written(file: CollateralFile) -> Option<Written> {
    let file = file.to_file();
    // The formats crate alone knows how collateral is written; around it stand two short members.
    let text = str::from_utf8(&file).ok()?;
    let (member, _) = text
        .strip_prefix("{\"collateral\":")?
        .rsplit_once(",\"tee\":")?;
    Some(Written {
        member: member.into(),
        file: file.into(),
    })
}

fn stamps(folder: &Path) -> Vec<Stamp> {
    let mut stamps: Vec<Stamp> = vek_files(folder)
        .into_iter()
        .chain([folder.join(TDX)])
        .chain(files(&folder.join("chain")).unwrap_or_default())
        .chain(files(&folder.join("crls")).unwrap_or_default())
        .map(|path| {
            let metadata = fs::metadata(&path).ok();
            let length = metadata.as_ref().map_or(0, fs::Metadata::len);
            (path, metadata.and_then(|m| m.modified().ok()), length)
        })
        .collect();
    stamps.sort();
    stamps
}

fn vek_files(folder: &Path) -> Vec<PathBuf> {
    ["vek.der", "vek.pem"]
        .iter()
        .map(|name| folder.join(name))
        .filter(|path| path.exists())
        .collect()
}

/// The files of a folder by name; none when it does not exist. Names that begin with a dot are what
/// editors and downloads leave while they write.
fn files(folder: &Path) -> Result<Vec<PathBuf>, CollateralError> {
    let error = |error| CollateralError::Io {
        path: folder.to_owned(),
        error,
    };
    let entries = match fs::read_dir(folder) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(error)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(error)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn read_snp(folder: &Path) -> Result<SnpCollateral, CollateralError> {
    let mut veks = Vec::new();
    for path in vek_files(folder) {
        veks.extend(read_objects(&path)?);
    }
    veks.dedup();
    if veks.len() > 1 {
        return Err(CollateralError::TooMuch {
            what: "vek",
            found: veks.len(),
            limit: 1,
        });
    }
    bounded(SnpCollateral {
        vek: veks.pop(),
        chain: read_all(&folder.join("chain"), "chain")?,
        crls: read_all(&folder.join("crls"), "crls")?,
    })
}

fn bounded(snp: SnpCollateral) -> Result<SnpCollateral, CollateralError> {
    let bytes = snp
        .vek
        .iter()
        .chain(&snp.chain)
        .chain(&snp.crls)
        .map(Vec::len)
        .sum();
    if bytes > MAX_COLLATERAL {
        return Err(CollateralError::TooMuch {
            what: "collateral bytes",
            found: bytes,
            limit: MAX_COLLATERAL,
        });
    }
    Ok(snp)
}

/// The members of formats.md §7 in one JSON object, however it is spaced and ordered; `None`: there is no such file.
fn read_tdx(folder: &Path) -> Result<Option<CollateralFile>, CollateralError> {
    let path = folder.join(TDX);
    let mut bytes = Vec::new();
    match File::open(&path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Twice the bound leaves room for hex; more could not be served anyway.
        file => file
            .and_then(|file| file.take(2 * MAX_COLLATERAL as u64).read_to_end(&mut bytes))
            .map_err(|error| CollateralError::Io {
                path: path.clone(),
                error,
            })?,
    };
    let unfit = |reason: String| CollateralError::Tdx {
        path: path.clone(),
        reason,
    };
    let members: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&bytes).map_err(|error| unfit(error.to_string()))?;
    if members.is_empty() {
        return Ok(None);
    }
    let file = serde_json::json!({
        "collateral": members,
        "tee": Tee::Tdx.name(),
        "v": "touchstone/collateral/1",
    });
    let file = jcs::to_file(&file).map_err(|error| unfit(error.to_string()))?;
    let file = CollateralFile::parse(&file).map_err(|error| unfit(error.to_string()))?;
    Ok(Some(file))
}

fn read_all(folder: &Path, what: &'static str) -> Result<Vec<Vec<u8>>, CollateralError> {
    let mut objects: Vec<Vec<u8>> = Vec::new();
    for path in files(folder)? {
        for object in read_objects(&path)? {
            // The same certificate in DER and in PEM is one certificate; verifiers refuse it twice.
            if !objects.contains(&object) {
                objects.push(object);
            }
        }
        if objects.len() > MAX_COLLATERAL_ITEMS {
            return Err(CollateralError::TooMuch {
                what,
                found: objects.len(),
                limit: MAX_COLLATERAL_ITEMS,
            });
        }
    }
    Ok(objects)
}

/// The objects of one file: one in DER, any number in PEM.
fn read_objects(path: &Path) -> Result<Vec<Vec<u8>>, CollateralError> {
    let io = |error| CollateralError::Io {
        path: path.to_owned(),
        error,
    };
    let mut bytes = Vec::new();
    // Twice the bound leaves room for PEM; more could not be served anyway.
    File::open(path)
        .map_err(io)?
        .take(2 * MAX_COLLATERAL as u64)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    let objects = match std::str::from_utf8(&bytes) {
        Ok(text) if text.contains("-----BEGIN ") => pem_objects(text),
        _ => Some(vec![bytes.clone()]),
    };
    match objects {
        Some(objects)
            if !objects.is_empty() && objects.iter().all(|object| is_one_der_sequence(object)) =>
        {
            Ok(objects)
        }
        _ => Err(CollateralError::Encoding {
            path: path.to_owned(),
            found: format!("{} bytes that are neither or incomplete", bytes.len()),
        }),
    }
}

fn pem_objects(text: &str) -> Option<Vec<Vec<u8>>> {
    let mut objects = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, body) = after.split_once("-----")?;
        let (body, after) = body.split_once(&format!("-----END {label}-----"))?;
        let base64: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        objects.push(base64_decode(&base64).ok()?);
        rest = after;
    }
    Some(objects)
}

/// Whether the bytes are one DER SEQUENCE from first to last: certificates and CRLs are, and a file
/// that is still being written is not.
fn is_one_der_sequence(bytes: &[u8]) -> bool {
    let Some((0x30, rest)) = bytes.split_first().map(|(tag, rest)| (*tag, rest)) else {
        return false;
    };
    let Some((&first, rest)) = rest.split_first() else {
        return false;
    };
    if first < 0x80 {
        return rest.len() == usize::from(first);
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 {
        return false;
    }
    match rest.split_at_checked(count) {
        Some((length, content)) => {
            length
                .iter()
                .fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte))
                == content.len()
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use touchstone_formats::{Evidence, TdxCollateral, jcs, text::base64_encode};

    use super::*;

    fn der(content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x30, 0x82, (content.len() >> 8) as u8, content.len() as u8];
        bytes.extend_from_slice(content);
        bytes
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let base64 = base64_encode(der);
        let lines: Vec<&str> = base64
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            lines.join("\n")
        )
    }

    fn evidence() -> Evidence {
        Evidence {
            purpose: Some(touchstone_formats::Purpose::Boot),
            nonce: None,
            tee: Tee::SevSnp,
            quote: vec![7; 1184],
            collateral: None,
            event_log: None,
        }
    }

    fn attached(folder: &CollateralFolder) -> Option<SnpCollateral> {
        let stored = String::from_utf8(jcs::to_vec(&evidence()).unwrap()).unwrap();
        let mut file = folder.attach(&stored).into_bytes();
        file.push(b'\n');
        let parsed = Evidence::parse(&file).unwrap();
        assert_eq!(
            Evidence {
                collateral: None,
                ..parsed.clone()
            },
            evidence()
        );
        assert_eq!(parsed.to_file(), file);
        match parsed.collateral {
            Some(Collateral::SevSnp(snp)) => Some(snp),
            None => None,
            Some(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn der_and_pem_are_read_and_changes_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let folder = CollateralFolder::open(Some(path.to_owned()));
        assert_eq!(attached(&folder), None);

        let (vek, ask, ark, crl) = (
            der(&[1; 300]),
            der(&[2; 400]),
            der(&[3; 500]),
            der(&[4; 200]),
        );
        fs::write(path.join("vek.der"), &vek).unwrap();
        folder.refresh();
        let only_vek = SnpCollateral {
            vek: Some(vek.clone()),
            ..SnpCollateral::default()
        };
        assert_eq!(attached(&folder), Some(only_vek));

        fs::create_dir(path.join("chain")).unwrap();
        fs::create_dir(path.join("crls")).unwrap();
        // ASK and ARK in one PEM file, as AMD serves them; the ASK again in DER.
        let both = format!("{}{}", pem("CERTIFICATE", &ask), pem("CERTIFICATE", &ark));
        fs::write(path.join("chain/cert_chain.pem"), both).unwrap();
        fs::write(path.join("chain/z_ask.der"), &ask).unwrap();
        fs::write(path.join("crls/milan.crl"), pem("X509 CRL", &crl)).unwrap();
        fs::write(path.join("crls/.milan.crl.part"), b"half").unwrap();
        folder.refresh();
        let whole = SnpCollateral {
            vek: Some(vek),
            chain: vec![ask, ark],
            crls: vec![crl],
        };
        assert_eq!(attached(&folder), Some(whole.clone()));

        // A file that is half written changes nothing; when it is complete it counts.
        let newer = der(&[5; 200]);
        fs::write(path.join("crls/milan.crl"), &newer[..100]).unwrap();
        folder.refresh();
        assert_eq!(attached(&folder), Some(whole.clone()));
        fs::write(path.join("crls/milan.crl"), &newer).unwrap();
        folder.refresh();
        assert_eq!(
            attached(&folder),
            Some(SnpCollateral {
                crls: vec![newer],
                ..whole
            })
        );

        // Emptied by the operator: served without.
        fs::remove_file(path.join("vek.der")).unwrap();
        fs::remove_dir_all(path.join("chain")).unwrap();
        fs::remove_dir_all(path.join("crls")).unwrap();
        folder.refresh();
        assert_eq!(attached(&folder), None);
    }

    #[test]
    fn tdx_evidence_gets_its_own_collateral_and_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let mut tdx = TdxCollateral {
            tcb_info: Some("{\"id\":\"TDX\"}".into()),
            pck_crl_issuer_chain: Some("PEM\n".into()),
            ..TdxCollateral::default()
        };
        let put = |tdx: &TdxCollateral| {
            // Spaced, and in another order than the canonical one: both are the operator's affair.
            let value = serde_json::to_value(tdx).unwrap();
            fs::write(
                path.join(TDX),
                serde_json::to_string_pretty(&value).unwrap(),
            )
            .unwrap();
        };
        put(&tdx);
        let folder = CollateralFolder::open(Some(path.to_owned()));
        let of_tdx = Evidence {
            tee: Tee::Tdx,
            quote: vec![7; 1000],
            ..evidence()
        };
        let attached_tdx = || {
            let stored = String::from_utf8(jcs::to_vec(&of_tdx).unwrap()).unwrap();
            let mut file = folder.attach(&stored).into_bytes();
            file.push(b'\n');
            let parsed = Evidence::parse(&file).unwrap();
            assert_eq!(parsed.to_file(), file, "canonical");
            parsed.collateral
        };
        assert_eq!(attached_tdx(), Some(Collateral::Tdx(tdx.clone())));
        assert_eq!(attached(&folder), None, "SEV-SNP evidence gets none of it");
        let answer = folder.answer(&Method::GET, None).unwrap();
        assert_eq!(answer.status(), StatusCode::OK);

        tdx.qe_identity = Some("{}".into());
        put(&tdx);
        folder.refresh();
        assert_eq!(attached_tdx(), Some(Collateral::Tdx(tdx.clone())));
        for bad in [
            "",
            "{\"tcb_info\":",
            "[]",
            "{\"tcb_info\":1}",
            "{\"vek\":\"AA==\"}",
        ] {
            fs::write(path.join(TDX), bad).unwrap();
            assert!(
                matches!(read_tdx(path), Err(CollateralError::Tdx { .. })),
                "{bad}"
            );
            folder.refresh();
            assert_eq!(attached_tdx(), Some(Collateral::Tdx(tdx.clone())), "{bad}");
        }
        fs::remove_file(path.join(TDX)).unwrap();
        folder.refresh();
        assert_eq!(attached_tdx(), None);
    }

    /// `collateral serve` writes its forecast every minute.
    #[test]
    fn a_new_forecast_is_no_new_collateral() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::write(path.join("vek.der"), der(&[1; 300])).unwrap();
        let before = stamps(path);
        fs::write(path.join(OUTLOOK), r#"{"words":"x","seconds_left":null}"#).unwrap();
        assert_eq!(stamps(path), before);
        fs::write(path.join("vek.der"), der(&[1; 301])).unwrap();
        assert_ne!(stamps(path), before);
    }

    #[test]
    fn what_is_no_collateral_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::create_dir(path.join("chain")).unwrap();
        let read = |name: &str, bytes: &[u8]| {
            fs::write(path.join(name), bytes).unwrap();
            let result = read_snp(path);
            fs::remove_file(path.join(name)).unwrap();
            result
        };
        let good = der(&[1; 300]);
        read("vek.der", &good).unwrap();
        for bad in [
            &b""[..],
            b"hello",
            &good[..200],
            &[good.clone(), vec![0]].concat(),
            b"-----BEGIN X-----\nAA",
        ] {
            assert!(
                matches!(read("vek.der", bad), Err(CollateralError::Encoding { .. })),
                "{bad:?}"
            );
        }
        let two = format!(
            "{}{}",
            pem("CERTIFICATE", &good),
            pem("CERTIFICATE", &der(&[2; 300]))
        );
        assert!(matches!(
            read("vek.pem", two.as_bytes()),
            Err(CollateralError::TooMuch { what: "vek", .. })
        ));
        let many: String = (0..=MAX_COLLATERAL_ITEMS)
            .map(|n| pem("CERTIFICATE", &der(&[n as u8; 300])))
            .collect();
        assert!(matches!(
            read("chain/all.pem", many.as_bytes()),
            Err(CollateralError::TooMuch { what: "chain", .. })
        ));
        let large: String = (0..16)
            .map(|n| pem("CERTIFICATE", &der(&[n as u8; 65_532])))
            .collect();
        read("chain/all.pem", large.as_bytes()).unwrap();
        fs::write(path.join("vek.der"), &good).unwrap();
        let larger: String = (0..16)
            .map(|n| pem("CERTIFICATE", &der(&[n as u8; 65_532])))
            .collect();
        assert!(matches!(
            read("chain/all.pem", larger.as_bytes()),
            Err(CollateralError::TooMuch {
                what: "collateral bytes",
                ..
            })
        ));
    }
}
