//! Reading: all that is stored of one receipt, by its id.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, OptionalExtension};
use tokio::sync::Semaphore;
use touchstone_formats::{Digest, Guarantee, Receipt};

use super::{StoreError, digest_column, open_reader, pack, recent::Recent};
use crate::pending::Id;

/// Connections for reading. Each serves a few thousand look-ups a second.
const READERS: usize = 4;

/// A keyset as it is stored. Rows like this never change.
#[derive(Debug, PartialEq, Eq)]
pub struct KeysetRow {
    /// Canonical JSON.
    pub jcs: String,
    /// Of purpose boot; canonical JSON.
    pub evidence: String,
}

/// A seal as it is stored.
#[derive(Debug, PartialEq, Eq)]
pub struct BatchRow {
    /// The checkpoint: a signed note.
    pub note: String,
    /// Of purpose checkpoint; canonical JSON.
    pub evidence: String,
}

/// Where a receipt stands in the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of its entry.
    pub index: u64,
    /// Inclusion proof.
    pub proof: Vec<Digest>,
    /// Its checkpoint.
    pub batch: Arc<BatchRow>,
}

/// Whether what is missing can still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It can.
    Open,
    /// The enclave has ended.
    Ended,
    /// The log of its keyset has ended.
    Closed,
}

/// All that is stored of a receipt.
#[derive(Debug)]
pub struct Lookup {
    /// The receipt.
    pub receipt: Option<Box<Receipt>>,
    /// Its keyset.
    pub keyset: Option<Arc<KeysetRow>>,
    /// Its place in the log.
    pub place: Option<Place>,
    /// Of purpose receipt; canonical JSON.
    pub quote: Option<String>,
    /// The catalog that was in force; canonical JSON.
    pub catalog: Option<Arc<str>>,
    /// Whether it stands among those that were promised.
    pub promised: bool,
    /// Whether what is missing can still come.
    pub fate: Fate,
}

/// What belongs to a receipt that stands elsewhere.
#[derive(Debug)]
pub struct Context {
    /// The keyset.
    pub keyset: Option<Arc<KeysetRow>>,
    /// The catalog.
    pub catalog: Option<Arc<str>>,
}

pub(super) struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Reader>>>,
    slots: Arc<Semaphore>,
    recent: Arc<Recent>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readers({})", self.path.display())
    }
}

impl Readers {
    pub(super) fn new(path: &Path, recent: Arc<Recent>) -> Self {
        Self {
            path: path.to_owned(),
            idle: Arc::default(),
            slots: Arc::new(Semaphore::new(READERS)),
            recent,
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let slot = self
            .slots
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Closed)?;
        let (idle, path, recent) = (self.idle.clone(), self.path.clone(), self.recent.clone());
        tokio::task::spawn_blocking(move || {
            let list = || idle.lock().unwrap_or_else(PoisonError::into_inner);
            let reader = list().pop();
            let mut reader = match reader {
                Some(reader) => reader,
                None => Reader {
                    db: open_reader(&path)?,
                    recent,
                },
            };
            let result = work(&mut reader);
            // A reader that failed may hold a connection that will fail again.
            if result.is_ok() {
                list().push(reader);
            }
            drop(slot);
            result
        })
        .await
        .map_err(|_| StoreError::Closed)?
    }

    pub(super) async fn lookup(&self, id: Id, noted: Option<Digest>) -> Result<Lookup, StoreError> {
        if let Some(found) = self.recent(&id)? {
            return Ok(found);
        }
        self.read(move |reader| reader.lookup(&id, noted)).await
    }

    pub(super) async fn object(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |reader| reader.object(&digest)).await
    }

    pub(super) async fn missing_objects(
        &self,
        digests: Vec<Digest>,
    ) -> Result<Vec<Digest>, StoreError> {
        self.read(move |reader| {
            let mut missing = Vec::new();
            for digest in digests {
                if !reader.has_object(&digest)? {
                    missing.push(digest);
                }
            }
            Ok(missing)
        })
        .await
    }

    /// A receipt that was stored a moment ago, and for which nothing else has to be looked up.
    fn recent(&self, id: &Id) -> Result<Option<Lookup>, StoreError> {
        let Some((sealed, batch)) = self.recent.get(id) else {
            return Ok(None);
        };
        let receipt = parse(&sealed.cose)?;
        // Its quote is in the file, or still to come.
        if receipt.claims.guarantees.contains(Guarantee::Quoted) {
            return Ok(None);
        }
        let keyset = self.recent.keysets.get(&receipt.claims.keyset_digest);
        let catalog = self.recent.catalogs.get(&receipt.claims.catalog.1);
        // Remembered from the second receipt on.
        if keyset.is_none() || catalog.is_none() {
            return Ok(None);
        }
        Ok(Some(Lookup {
            receipt: Some(Box::new(receipt)),
            keyset,
            place: Some(Place {
                index: sealed.index,
                proof: sealed.proof,
                batch,
            }),
            quote: None,
            catalog,
            promised: true,
            fate: Fate::Open,
        }))
    }

    pub(super) async fn context(
        &self,
        keyset: Digest,
        catalog: Digest,
    ) -> Result<Context, StoreError> {
        self.read(move |reader| {
            Ok(Context {
                keyset: reader.keyset(&keyset)?,
                catalog: reader.catalog(&catalog)?,
            })
        })
        .await
    }
}

struct Reader {
    db: Connection,
    recent: Arc<Recent>,
}

impl Reader {
    fn lookup(&mut self, id: &Id, noted: Option<Digest>) -> Result<Lookup, StoreError> {
        // One transaction: a receipt moves from `pending` to `receipts` in one, and must be seen in
        // one of them.
        self.db.prepare_cached("BEGIN")?.execute([])?;
        let result = self.lookup_rows(id, noted);
        self.db.prepare_cached("COMMIT")?.execute([])?;
        result
    }

    fn lookup_rows(&mut self, id: &Id, noted: Option<Digest>) -> Result<Lookup, StoreError> {
        let quote = self
            .db
            .prepare_cached("SELECT evidence FROM quotes WHERE id = ?1")?
            .query_row([&id[..]], |row| row.get::<_, String>(0))
            .optional()?;
        let sealed = self
            .db
            .prepare_cached(
                "SELECT records, slot, batch FROM receipts JOIN packs USING (pack) WHERE id = ?1",
            )?
            .query_row([&id[..]], |row| {
                let sealed =
                    pack::unpack(row.get_ref(0)?.as_blob().unwrap_or_default(), row.get(1)?);
                Ok((sealed, row.get::<_, i64>(2)?))
            })
            .optional()?;
        if let Some((sealed, batch)) = sealed {
            let sealed = sealed.ok_or(StoreError::Row("a pack"))?;
            let receipt = parse(&sealed.cose)?;
            let place = Place {
                index: sealed.index,
                proof: sealed.proof,
                batch: self.batch(batch)?,
            };
            return Ok(Lookup {
                keyset: self.keyset(&receipt.claims.keyset_digest)?,
                catalog: self.catalog(&receipt.claims.catalog.1)?,
                // A quote may still come for as long as the enclave is there.
                fate: self.fate(&receipt.claims.keyset_digest, None, false)?,
                receipt: Some(Box::new(receipt)),
                place: Some(place),
                quote,
                promised: true,
            });
        }
        let pending = self
            .db
            .prepare_cached("SELECT keyset, boot, receipt FROM pending WHERE id = ?1")?
            .query_row([&id[..]], |row| {
                Ok((
                    row.get::<_, Vec<u8>>(0)?,
                    row.get::<_, Option<i64>>(1)?,
                    row.get::<_, Option<Vec<u8>>>(2)?,
                ))
            })
            .optional()?;
        let Some((keyset, noted, cose)) = pending else {
            return Ok(Lookup {
                receipt: None,
                keyset: None,
                place: None,
                quote,
                catalog: None,
                promised: noted.is_some(),
                fate: match noted {
                    Some(keyset) => self.fate(&keyset, None, true)?,
                    None => Fate::Open,
                },
            });
        };
        let keyset = digest_column(&keyset, "a pending receipt's keyset")?;
        let receipt = cose.map(|cose| parse(&cose)).transpose()?;
        Ok(Lookup {
            keyset: self.keyset(&keyset)?,
            catalog: match &receipt {
                Some(receipt) => self.catalog(&receipt.claims.catalog.1)?,
                None => None,
            },
            fate: self.fate(&keyset, noted, true)?,
            receipt: receipt.map(Box::new),
            place: None,
            quote,
            promised: true,
        })
    }

    fn fate(
        &self,
        keyset: &Digest,
        noted: Option<i64>,
        unsealed: bool,
    ) -> Result<Fate, StoreError> {
        let row: Option<(i64, bool)> = self
            .db
            .prepare_cached("SELECT boot, closed FROM keysets WHERE digest = ?1")?
            .query_row([&keyset.0[..]], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        // Noted before any boot was seen, under a keyset that nobody has listed: nothing is known.
        let Some(boot) = row.map(|(boot, _)| boot).or(noted) else {
            return Ok(Fate::Open);
        };
        let current = self
            .db
            .prepare_cached("SELECT 1 FROM enclaves WHERE boot = ?1")?
            .exists([boot])?;
        Ok(match row {
            _ if !current => Fate::Ended,
            Some((_, true)) if unsealed => Fate::Closed,
            _ => Fate::Open,
        })
    }

    fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .db
            .prepare_cached(
                "SELECT CAST(jcs AS BLOB) FROM keysets WHERE digest = ?1
                 UNION ALL SELECT CAST(jcs AS BLOB) FROM catalogs WHERE digest = ?1
                 UNION ALL SELECT bytes FROM objects WHERE digest = ?1 LIMIT 1",
            )?
            .query_row([&digest.0[..]], |row| row.get(0))
            .optional()?)
    }

    fn has_object(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self
            .db
            .prepare_cached("SELECT 1 FROM objects WHERE digest = ?1")?
            .exists([&digest.0[..]])?)
    }

    fn keyset(&self, digest: &Digest) -> Result<Option<Arc<KeysetRow>>, StoreError> {
        if let Some(row) = self.recent.keysets.get(digest) {
            return Ok(Some(row));
        }
        let row = self
            .db
            .prepare_cached("SELECT jcs, evidence FROM keysets WHERE digest = ?1")?
            .query_row([&digest.0[..]], |row| {
                Ok(KeysetRow {
                    jcs: row.get(0)?,
                    evidence: row.get(1)?,
                })
            })
            .optional()?
            .map(Arc::new);
        if let Some(row) = &row {
            self.recent.keysets.insert(*digest, row.clone());
        }
        Ok(row)
    }

    fn catalog(&self, digest: &Digest) -> Result<Option<Arc<str>>, StoreError> {
        if let Some(jcs) = self.recent.catalogs.get(digest) {
            return Ok(Some(jcs));
        }
        let jcs = self
            .db
            .prepare_cached("SELECT jcs FROM catalogs WHERE digest = ?1")?
            .query_row([&digest.0[..]], |row| row.get::<_, Arc<str>>(0))
            .optional()?;
        if let Some(jcs) = &jcs {
            self.recent.catalogs.insert(*digest, jcs.clone());
        }
        Ok(jcs)
    }

    fn batch(&self, batch: i64) -> Result<Arc<BatchRow>, StoreError> {
        if let Some(row) = self.recent.batches.get(&batch) {
            return Ok(row);
        }
        let row = self
            .db
            .prepare_cached("SELECT note, evidence FROM batches WHERE batch = ?1")?
            .query_row([batch], |row| {
                Ok(BatchRow {
                    note: row.get(0)?,
                    evidence: row.get(1)?,
                })
            })?;
        let row = Arc::new(row);
        self.recent.batches.insert(batch, row.clone());
        Ok(row)
    }
}

fn parse(cose: &[u8]) -> Result<Receipt, StoreError> {
    Receipt::parse(cose).map_err(|_| StoreError::Row("a receipt"))
}
