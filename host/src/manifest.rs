//! The manifest of the software that runs here (docs/manifests.md), for callers who have to know what to accept.
//!
//! Its signers made it and its readers judge it; the host has neither the keys nor the say. It serves the file's bytes,
//! and looks at them only to see that they are whole: what is half written is not served, and the log says so.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
        IF_NONE_MATCH,
    },
};
use thiserror::Error;
use tokio::sync::watch;
use touchstone_formats::Digest;

use crate::problem::{Problem, json, preflight};

/// Where the manifest is to be had.
pub const PATH: &str = "/v1/manifest";
/// The file, at most: bytes (docs/manifests.md).
pub const MAX_FILE: u64 = 4 << 20;
/// Lines of it, at most.
const MAX_LINES: usize = 64;
const CONTENT: HeaderValue = HeaderValue::from_static("application/jsonl");

/// Why a file is not served.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ManifestError {
    /// The system said no.
    #[error("{0}")]
    Io(String),
    /// A folder, a pipe.
    #[error("it is no file")]
    NoFile,
    /// Larger than a manifest may be.
    #[error("it has {found} bytes, and a manifest has at most {MAX_FILE}")]
    TooLarge {
        /// Bytes.
        found: u64,
    },
    /// It changed while it was read.
    #[error("it changed while it was read")]
    Changing,
    /// No manifest, or half of one.
    #[error("line {line}: {reason}")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<io::Error> for ManifestError {
    fn from(error: io::Error) -> Self {
        ManifestError::Io(error.to_string())
    }
}

/// The manifest as it is now.
#[derive(Debug, Default)]
pub struct ManifestFile {
    path: Option<PathBuf>,
    served: RwLock<Option<Served>>,
    seen: Mutex<Seen>,
}

/// A manifest as it goes out.
#[derive(Debug, Clone)]
struct Served {
    bytes: Bytes,
    etag: HeaderValue,
}

/// What the file was when it was last looked at.
#[derive(Debug, Default)]
struct Seen {
    /// `None`: look again, whatever it is.
    stamp: Option<Stamp>,
    /// What was wrong with it, which is said once.
    error: Option<ManifestError>,
}

/// What tells that a file has changed. The time of its last change of any kind cannot be set back as its time of writing
/// can; another file of the same name is another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    /// `None`: there is no file.
    file: Option<(u64, u64, i64, i64, u64)>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        let (seconds, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
        Stamp {
            file: Some((
                metadata.dev(),
                metadata.ino(),
                seconds,
                nanoseconds,
                metadata.len(),
            )),
        }
    }
}

impl ManifestFile {
    /// Reads the file for the first time. `None`: there is none to serve.
    pub fn open(path: Option<PathBuf>) -> Arc<Self> {
        let manifest = Arc::new(Self {
            path,
            ..Self::default()
        });
        manifest.refresh();
        manifest
    }

    /// Whether there is a file to look at.
    pub fn is_watched(&self) -> bool {
        self.path.is_some()
    }

    /// Looks at the file until told to stop.
    pub async fn watch(self: Arc<Self>, every: Duration, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let manifest = self.clone();
            let _ = tokio::task::spawn_blocking(move || manifest.refresh()).await;
        }
    }

    /// Reads the file again if it has changed. While it cannot be read as a whole, what was read before stays in use; a
    /// file that is gone is not served any more.
    pub fn refresh(&self) {
        let Some(path) = &self.path else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok((Stamp { file: None }, None))
            }
            Err(error) => Err(error.into()),
            Ok(metadata) if seen.stamp == Some(Stamp::of(&metadata)) => return,
            Ok(_) => read(path).map(|(stamp, bytes)| (stamp, Some(bytes))),
        };
        match read {
            Ok((stamp, _)) if seen.stamp == Some(stamp) => {}
            Ok((stamp, None)) => {
                tracing::warn!(path = %path.display(), "there is no manifest: {PATH} answers 404");
                self.serve(None);
                *seen = Seen {
                    stamp: Some(stamp),
                    error: None,
                };
            }
            Ok((stamp, Some(bytes))) => {
                // Looked at once, whatever comes of it: it is the same until it changes.
                seen.stamp = Some(stamp);
                seen.error = match whole(&bytes) {
                    Ok(signatures) => {
                        let length = bytes.len();
                        tracing::info!(path = %path.display(), signatures, length, "manifest read");
                        self.serve(Some(bytes));
                        None
                    }
                    Err(error) => {
                        self.say(path, &error);
                        Some(error)
                    }
                };
            }
            // Tried again at every look, and said once.
            Err(error) => {
                seen.stamp = None;
                if seen.error.as_ref() != Some(&error) {
                    self.say(path, &error);
                    seen.error = Some(error);
                }
            }
        }
    }

    fn say(&self, path: &Path, error: &ManifestError) {
        let (path, kept) = (path.display(), self.now().is_some());
        match kept {
            true => {
                tracing::error!(%path, %error, "MANIFEST NOT READ: the one before stays in use")
            }
            false => {
                tracing::error!(%path, %error, "MANIFEST NOT READ, and there is none to serve")
            }
        }
    }

    fn serve(&self, bytes: Option<Vec<u8>>) {
        let served = bytes.and_then(|bytes| {
            let etag = format!("\"{}\"", Digest::of(&bytes));
            Some(Served {
                etag: HeaderValue::from_str(&etag).ok()?,
                bytes: bytes.into(),
            })
        });
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = served;
    }

    fn now(&self) -> Option<Served> {
        let served = self.served.read();
        served.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers a request for the manifest. A preflight too: the enclave knows no such target.
    ///
    /// # Errors
    /// A [`Problem`] for the caller.
    pub fn answer(
        &self,
        method: &Method,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Response<Bytes>, Problem> {
        if *method == Method::OPTIONS {
            return Ok(preflight());
        }
        Problem::unless_read(method)?;
        if query.is_some() {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "the manifest's address has no query",
            ));
        }
        let Some(Served { bytes, etag }) = self.now() else {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "this host has no manifest: its operator has to name one as manifest.file",
            ));
        };
        let mut response = match has(headers, &etag) {
            true => json(StatusCode::NOT_MODIFIED, Bytes::new()),
            false => json(StatusCode::OK, bytes),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, CONTENT);
        headers.insert(ETAG, etag);
        // May be kept, and is asked after each time.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("ETag, Retry-After"),
        );
        Ok(response)
    }
}

/// Whether the caller has it already (RFC 9110 §13.1.2).
fn has(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter();
    let mut tags = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes())
}

/// The file's bytes, all of one state of it.
fn read(path: &Path) -> Result<(Stamp, Vec<u8>), ManifestError> {
    // A pipe would be waited for, for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(ManifestError::NoFile);
    }
    let file = File::open(path)?;
    let before = file.metadata()?;
    let too_large = |found| ManifestError::TooLarge { found };
    if before.len() > MAX_FILE {
        return Err(too_large(before.len()));
    }
    let mut bytes = Vec::new();
    let read = (&file).take(MAX_FILE + 1).read_to_end(&mut bytes)? as u64;
    if read > MAX_FILE {
        return Err(too_large(read));
    }
    let stamp = Stamp::of(&before);
    if stamp != Stamp::of(&file.metadata()?) || read != before.len() {
        return Err(ManifestError::Changing);
    }
    Ok((stamp, bytes))
}

/// How many signatures there are in what is a manifest by its looks: a bundle on each line, to its end. Whether anybody
/// signed it is not seen here, nor whether what was signed says anything.
fn whole(bytes: &[u8]) -> Result<usize, ManifestError> {
    let mut lines = 0;
    for line in bytes
        .strip_suffix(b"\n")
        .unwrap_or(bytes)
        .split(|b| *b == b'\n')
    {
        lines += 1;
        let malformed = |reason: String| ManifestError::Malformed {
            line: lines,
            reason,
        };
        if lines > MAX_LINES {
            return Err(malformed(format!("a manifest has at most {MAX_LINES}")));
        }
        let bundle: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(line).map_err(|error| malformed(error.to_string()))?;
        for member in ["mediaType", "verificationMaterial", "dsseEnvelope"] {
            if !bundle.contains_key(member) {
                return Err(malformed(format!("no sigstore bundle: it has no {member}")));
            }
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"mediaType":"m","verificationMaterial":{},"dsseEnvelope":{}}"#;

    fn served(manifest: &ManifestFile) -> Option<String> {
        let served = manifest.now()?;
        Some(String::from_utf8(served.bytes.to_vec()).unwrap())
    }

    #[test]
    fn what_is_half_or_too_large_is_not_served_and_what_was_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.jsonl");
        let manifest = ManifestFile::open(Some(path.clone()));
        assert_eq!(served(&manifest), None, "none is there");
        let one = format!("{LINE}\n");
        fs::write(&path, &one).unwrap();
        manifest.refresh();
        assert_eq!(served(&manifest), Some(one.clone()));

        let long = vec![b'x'; MAX_FILE as usize + 1];
        let many = format!("{LINE}\n").repeat(MAX_LINES + 1);
        for (bad, error) in [
            (&b""[..], "line 1: EOF"),
            (&LINE.as_bytes()[..30], "line 1: EOF"),
            (format!("{LINE}\n{}", &LINE[..30]).as_bytes(), "line 2: EOF"),
            (format!("{LINE}\n\n{LINE}\n").as_bytes(), "line 2: EOF"),
            (b"[]\n", "line 1: invalid type"),
            (b"{\"mediaType\":1}\n", "it has no verificationMaterial"),
            (many.as_bytes(), "line 65: a manifest has at most 64"),
            (&long, "4194305 bytes"),
        ] {
            fs::write(&path, bad).unwrap();
            manifest.refresh();
            assert_eq!(served(&manifest), Some(one.clone()), "{error}");
            let seen = manifest.seen.lock().unwrap();
            let found = seen.error.as_ref().unwrap().to_string();
            assert!(found.contains(error), "{found}: {error}");
        }
        let two = format!("{LINE}\n{LINE}");
        fs::write(&path, &two).unwrap();
        manifest.refresh();
        assert_eq!(served(&manifest), Some(two.clone()));
        assert_eq!(manifest.seen.lock().unwrap().error, None);

        // A folder of that name; then none at all.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        manifest.refresh();
        assert_eq!(
            manifest.seen.lock().unwrap().error,
            Some(ManifestError::NoFile)
        );
        assert_eq!(served(&manifest), Some(two));
        fs::remove_dir(&path).unwrap();
        manifest.refresh();
        assert_eq!(served(&manifest), None);
    }

    #[test]
    fn a_file_that_took_another_s_name_is_seen_whatever_its_dates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.jsonl");
        fs::write(&path, LINE).unwrap();
        let old = fs::metadata(&path).unwrap().modified().unwrap();
        let manifest = ManifestFile::open(Some(path.clone()));
        let other = LINE.replace("\"m\"", "\"n\"");
        let new = dir.path().join("new");
        fs::write(&new, &other).unwrap();
        let dates = fs::FileTimes::new().set_modified(old);
        let file = File::options().write(true).open(&new).unwrap();
        file.set_times(dates).unwrap();
        fs::rename(&new, &path).unwrap();
        manifest.refresh();
        assert_eq!(served(&manifest), Some(other));
    }
}
