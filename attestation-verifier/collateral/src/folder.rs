//! The folder that a host attaches collateral from (docs/host.md, "Collateral").

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use touchstone_formats::evidence::{Collateral, CollateralFile, SnpCollateral, Tee};
use touchstone_formats::jcs;
use touchstone_formats::limits::{MAX_COLLATERAL, MAX_COLLATERAL_ITEMS};

use crate::Error;
use crate::cache::write_atomically;

/// The names that this writes; others in the folder are the operator's and stay.
const VEK: &str = "vek.der";
const CHAIN: &str = "chain/intermediate.der";
const CRL: &str = "crls/root.der";
const TDX: &str = "tdx.json";

/// Writes collateral as a host reads it, each file at once, and only those that have changed. Returns which.
///
/// # Errors
/// [`Error::Io`]; what was written before stays.
pub fn write(folder: &Path, collateral: &Collateral) -> Result<Vec<PathBuf>, Error> {
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    match collateral {
        Collateral::SevSnp(snp) => {
            // The chain first: a host that looks in between has at worst an old VEK under a new intermediate, which
            // verifiers refuse, and looks again a second later.
            files.extend(snp.chain.first().map(|der| (CHAIN, der.clone())));
            files.extend(snp.crls.first().map(|der| (CRL, der.clone())));
            files.extend(snp.vek.as_ref().map(|der| (VEK, der.clone())));
        }
        Collateral::Tdx(tdx) => {
            let text = jcs::to_file(tdx).map_err(|e| Error::Usage(e.to_string()))?;
            files.push((TDX, text));
        }
    }
    let mut changed = Vec::new();
    for (name, bytes) in files {
        let path = folder.join(name);
        let error = |error| Error::Io {
            path: path.clone(),
            error,
        };
        match fs::read(&path) {
            Ok(there) if there == bytes => continue,
            Err(missing) if missing.kind() == ErrorKind::NotFound => {
                let parent = path.parent().unwrap_or(folder);
                fs::create_dir_all(parent).map_err(error)?;
            }
            Ok(_) => {}
            Err(other) => return Err(error(other)),
        }
        write_atomically(&path, &bytes).map_err(error)?;
        changed.push(path);
    }
    Ok(changed)
}

/// Reads a host's folder as the host does: DER or PEM, names that begin with a dot passed over. None: nothing for this
/// kind of platform is in it.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`].
pub fn read(folder: &Path, tee: Tee) -> Result<Option<Collateral>, Error> {
    if tee == Tee::Tdx {
        let path = folder.join(TDX);
        let Some(bytes) = read_file(&path)? else {
            return Ok(None);
        };
        return tdx(&bytes).map(Some).map_err(|reason| Error::Malformed {
            what: path.display().to_string(),
            reason,
        });
    }
    let mut snp = SnpCollateral::default();
    for name in [VEK, "vek.pem"] {
        snp.vek = snp.vek.or(objects(&folder.join(name))?.pop());
    }
    for (name, list) in [("chain", &mut snp.chain), ("crls", &mut snp.crls)] {
        for path in files(&folder.join(name))? {
            for object in objects(&path)? {
                if !list.contains(&object) {
                    list.push(object);
                }
            }
        }
        if list.len() > MAX_COLLATERAL_ITEMS {
            return Err(Error::Malformed {
                what: folder.join(name).display().to_string(),
                reason: format!("more than the {MAX_COLLATERAL_ITEMS} that a bundle can hold"),
            });
        }
    }
    Ok((snp != SnpCollateral::default()).then_some(Collateral::SevSnp(snp)))
}

/// The members of formats.md §7, in whatever order and spacing.
fn tdx(bytes: &[u8]) -> Result<Collateral, String> {
    let members: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let file = serde_json::json!({
        "collateral": members,
        "tee": "tdx",
        "v": "touchstone/collateral/1",
    });
    let file = jcs::to_file(&file).map_err(|error| error.to_string())?;
    CollateralFile::parse(&file)
        .map(|file| file.collateral)
        .map_err(|error| error.to_string())
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let error = |error| Error::Io {
        path: path.to_owned(),
        error,
    };
    let file = match File::open(path) {
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(error)?,
    };
    let mut bytes = Vec::new();
    // Room for PEM, or for hex; more could not be served anyway.
    file.take(2 * MAX_COLLATERAL as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(error)?;
    Ok(Some(bytes))
}

/// The objects of a file: one in DER, any number in PEM; none if it is not there.
fn objects(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let Some(bytes) = read_file(path)? else {
        return Ok(Vec::new());
    };
    if !bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        return Ok(vec![bytes]);
    }
    let malformed = |reason: String| Error::Malformed {
        what: path.display().to_string(),
        reason,
    };
    let mut found = Vec::new();
    for block in CertificateDer::pem_slice_iter(&bytes) {
        found.push(block.map_err(|e| malformed(e.to_string()))?.to_vec());
    }
    for block in CertificateRevocationListDer::pem_slice_iter(&bytes) {
        found.push(block.map_err(|e| malformed(e.to_string()))?.to_vec());
    }
    match found.is_empty() {
        true => Err(malformed("no certificate or revocation list in it".into())),
        false => Ok(found),
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let error = |error| Error::Io {
        path: folder.to_owned(),
        error,
    };
    let entries = match fs::read_dir(folder) {
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
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

#[cfg(test)]
mod tests {
    use touchstone_formats::evidence::TdxCollateral;

    use super::*;

    #[test]
    fn only_what_changed_is_written_and_others_files_stay() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("collateral");
        let mut snp = SnpCollateral {
            vek: Some(vec![1]),
            chain: vec![vec![2]],
            crls: vec![vec![3]],
        };
        let wrote = |snp: &SnpCollateral| {
            let files = write(&folder, &Collateral::SevSnp(snp.clone())).unwrap();
            let name = |path: PathBuf| path.strip_prefix(&folder).unwrap().display().to_string();
            files.into_iter().map(name).collect::<Vec<String>>()
        };
        assert_eq!(wrote(&snp), [CHAIN, CRL, VEK]);
        fs::write(folder.join("chain/own.pem"), "mine").unwrap();
        assert!(wrote(&snp).is_empty());
        snp.crls = vec![vec![4]];
        assert_eq!(wrote(&snp), [CRL]);
        assert_eq!(fs::read(folder.join(CRL)).unwrap(), [4]);
        assert_eq!(fs::read(folder.join("chain/own.pem")).unwrap(), b"mine");

        let tdx = TdxCollateral {
            tcb_info: Some("{}".into()),
            ..TdxCollateral::default()
        };
        let tdx = Collateral::Tdx(tdx);
        write(&folder, &tdx).unwrap();
        assert_eq!(
            fs::read(folder.join(TDX)).unwrap(),
            b"{\"tcb_info\":\"{}\"}\n"
        );

        // Read again as it was written; without what is not a certificate.
        fs::remove_file(folder.join("chain/own.pem")).unwrap();
        assert_eq!(
            read(&folder, Tee::SevSnp).unwrap(),
            Some(Collateral::SevSnp(snp))
        );
        assert_eq!(read(&folder, Tee::Tdx).unwrap(), Some(tdx));
        assert_eq!(read(place.path(), Tee::Tdx).unwrap(), None);
        assert_eq!(read(place.path(), Tee::SevSnp).unwrap(), None);
        for bad in ["", "{", "[]", "{\"tcb_info\":1}", "{\"unknown\":\"\"}"] {
            fs::write(folder.join(TDX), bad).unwrap();
            let error = read(&folder, Tee::Tdx).unwrap_err();
            assert!(matches!(error, Error::Malformed { .. }), "{bad}: {error}");
        }
    }
}
