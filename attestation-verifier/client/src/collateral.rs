//! Collateral for sessions: the caller's own, else the host's, else what verified before.
//!
//! Whoever gives it, it proves itself: none of this has to be trusted, and what comes from the host
//! may be missing, old or for another machine.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attestation_verifier::parse::crl::Crl;
use attestation_verifier::parse::tdx::tcb::{QeIdentity, TcbInfo};
use touchstone_formats::text::HexBytes;
use touchstone_formats::{Collateral, CollateralFile, SnpCollateral, TdxCollateral};

use crate::Error;
use crate::address::Server;
use crate::http::Records;
use crate::keep::replace;

/// Where the host gives it.
const TARGET: &str = "/v1/collateral";
/// How long the host may take.
const LIMIT: Duration = Duration::from_secs(10);
/// A collateral file, at most: 1 MiB of content in base64, and what is around it. Bytes.
const MAX_FILE: usize = 2 << 20;

/// Asks the host.
pub(crate) async fn of_host(records: &Records) -> Result<CollateralFile, Error> {
    let answer = records.read(TARGET, None, MAX_FILE, LIMIT).await?;
    if answer.status != 200 {
        let reason = format!("status {}, {}", answer.status, answer.problem());
        return Err(Error::malformed(reason));
    }
    CollateralFile::parse(&answer.body).map_err(|e| Error::malformed(e.to_string()))
}

/// The server's collateral with what the cache has that is newer in the place of it: a revocation list, a text of Intel's. None:
/// the cache has nothing newer. Newer revocation data prevails (formats.md §7, "Time"), and what the cache has was
/// good when it was kept; a host that shows an old list, in date as it may be, hides what was revoked since.
pub(crate) fn with_newer(given: &CollateralFile, kept: &CollateralFile) -> Option<CollateralFile> {
    let collateral = match (&given.collateral, &kept.collateral) {
        (Collateral::SevSnp(given), Collateral::SevSnp(kept)) => {
            Collateral::SevSnp(snp_with_newer(given, kept)?)
        }
        (Collateral::Tdx(given), Collateral::Tdx(kept)) => {
            Collateral::Tdx(tdx_with_newer(given, kept)?)
        }
        _ => return None,
    };
    Some(CollateralFile {
        tee: given.tee,
        collateral,
    })
}

fn snp_with_newer(given: &SnpCollateral, kept: &SnpCollateral) -> Option<SnpCollateral> {
    let mut newer = given.clone();
    for list in &mut newer.crls {
        for other in &kept.crls {
            if is_newer_list(other, list) {
                list.clone_from(other);
            }
        }
    }
    (newer != *given).then_some(newer)
}

fn tdx_with_newer(given: &TdxCollateral, kept: &TdxCollateral) -> Option<TdxCollateral> {
    let mut newer = given.clone();
    let lists = |given: &Option<HexBytes>, kept: &Option<HexBytes>| match (given, kept) {
        (Some(given), Some(kept)) => is_newer_list(&kept.0, &given.0),
        _ => false,
    };
    if lists(&given.pck_crl, &kept.pck_crl) {
        newer.pck_crl.clone_from(&kept.pck_crl);
        newer
            .pck_crl_issuer_chain
            .clone_from(&kept.pck_crl_issuer_chain);
    }
    if lists(&given.root_ca_crl, &kept.root_ca_crl) {
        newer.root_ca_crl.clone_from(&kept.root_ca_crl);
    }
    // Of two texts about the same, that of the later evaluation, and of two of one evaluation the later one.
    let info = |text: &Option<String>| {
        let info = TcbInfo::parse(text.as_deref()?).ok()?;
        let age = (info.tcb_evaluation_data_number, info.issue_date);
        Some((info.fmspc, age))
    };
    if let (Some((given, age)), Some((kept_for, kept_age))) =
        (info(&given.tcb_info), info(&kept.tcb_info))
        && given == kept_for
        && kept_age > age
    {
        newer.tcb_info.clone_from(&kept.tcb_info);
        newer
            .tcb_info_signature
            .clone_from(&kept.tcb_info_signature);
        newer
            .tcb_info_issuer_chain
            .clone_from(&kept.tcb_info_issuer_chain);
    }
    let identity = |text: &Option<String>| {
        let identity = QeIdentity::parse(text.as_deref()?).ok()?;
        Some((identity.tcb_evaluation_data_number, identity.issue_date))
    };
    if let (Some(age), Some(kept_age)) = (identity(&given.qe_identity), identity(&kept.qe_identity))
        && kept_age > age
    {
        newer.qe_identity.clone_from(&kept.qe_identity);
        newer
            .qe_identity_signature
            .clone_from(&kept.qe_identity_signature);
        newer
            .qe_identity_issuer_chain
            .clone_from(&kept.qe_identity_issuer_chain);
    }
    (newer != *given).then_some(newer)
}

/// Whether the first is a later list of the same issuer. What is no list is not compared.
fn is_newer_list(one: &[u8], other: &[u8]) -> bool {
    match (Crl::parse(one), Crl::parse(other)) {
        (Ok(one), Ok(other)) => one.issuer == other.issuer && one.this_update > other.this_update,
        _ => false,
    }
}

/// The caller's own folder of what verified, a file for each server.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    file: PathBuf,
    manifest: PathBuf,
}

impl Cache {
    /// The entry of one server in this folder, which is made if it is not there.
    pub fn new(folder: &Path, server: &Server) -> Result<Cache, Error> {
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::Usage(format!("folder {}: {e}", folder.display())))?;
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = server.authority.to_lowercase().chars().map(plain).collect();
        Ok(Cache {
            file: folder.join(format!("{name}.collateral.json")),
            manifest: folder.join(format!("{name}.manifest.jsonl")),
        })
    }

    /// Where the server's manifest is kept.
    pub fn manifest(&self) -> &Path {
        &self.manifest
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// What is kept; none if there is nothing, or nothing that can be read.
    pub fn read(&self) -> Option<CollateralFile> {
        // A pipe would be waited for, for ever.
        std::fs::metadata(&self.file)
            .ok()?
            .is_file()
            .then_some(())?;
        let mut bytes = Vec::new();
        File::open(&self.file)
            .ok()?
            .take(MAX_FILE as u64 + 1)
            .read_to_end(&mut bytes)
            .ok()?;
        CollateralFile::parse(&bytes).ok()
    }

    /// Keeps what verified. Readers find the old file or the new one, never half of one.
    pub fn write(&self, collateral: &CollateralFile) -> std::io::Result<()> {
        if self.read().as_ref() == Some(collateral) {
            return Ok(());
        }
        replace(&self.file, &collateral.to_file())
    }
}

#[cfg(test)]
mod tests {
    use touchstone_formats::Tee;
    use touchstone_testkit::machine::TdxMachine;
    use touchstone_testkit::tdx::TdReport;

    use super::*;

    type Change = fn(&mut TdxMachine);
    type Take = fn(&mut TdxCollateral, &TdxCollateral);

    fn file(tdx: &TdxCollateral) -> CollateralFile {
        CollateralFile {
            tee: Tee::Tdx,
            collateral: Collateral::Tdx(tdx.clone()),
        }
    }

    /// Each piece for itself; the newer one whichever side it is on, with its signature and issuers.
    #[test]
    fn the_newer_of_each_piece_is_taken() {
        const AT: u64 = 1_790_000_000;
        let machine = TdxMachine::new(4, TdReport::v1_0(), AT);
        let given = machine.collateral();
        let kept = |change: Change| {
            let mut machine = machine.clone();
            change(&mut machine);
            machine.collateral()
        };
        assert_eq!(with_newer(&file(&given), &file(&given)), None);
        let cases: [(Change, Take); 5] = [
            (
                |m| m.pck_crl.this_update += 60,
                |to, from| {
                    to.pck_crl.clone_from(&from.pck_crl);
                    to.pck_crl_issuer_chain
                        .clone_from(&from.pck_crl_issuer_chain);
                },
            ),
            (
                |m| m.root_crl.this_update += 60,
                |to, from| to.root_ca_crl.clone_from(&from.root_ca_crl),
            ),
            (|m| m.tcb_info.issue_date += 60, take_info),
            // A later evaluation, although it is dated earlier.
            (
                |m| {
                    m.tcb_info.tcb_evaluation_data_number += 1;
                    m.tcb_info.issue_date -= 60;
                },
                take_info,
            ),
            (
                |m| m.qe_identity.issue_date += 60,
                |to, from| {
                    to.qe_identity.clone_from(&from.qe_identity);
                    to.qe_identity_signature
                        .clone_from(&from.qe_identity_signature);
                    to.qe_identity_issuer_chain
                        .clone_from(&from.qe_identity_issuer_chain);
                },
            ),
        ];
        for (n, (change, take)) in cases.into_iter().enumerate() {
            let newer = kept(change);
            let mut expected = given.clone();
            take(&mut expected, &newer);
            assert_ne!(expected, given, "{n}");
            assert_eq!(
                with_newer(&file(&given), &file(&newer)),
                Some(file(&expected)),
                "{n}"
            );
            // The other way round the server's is the newer one.
            assert_eq!(with_newer(&file(&expected), &file(&given)), None, "{n}");
        }
        // Of another family: another text, not a newer one.
        let other = kept(|m| {
            m.tcb_info.issue_date += 60;
            m.tcb_info.fmspc[0] ^= 1;
        });
        let mut only_info = given.clone();
        take_info(&mut only_info, &other);
        assert_eq!(with_newer(&file(&given), &file(&only_info)), None);
    }

    fn take_info(to: &mut TdxCollateral, from: &TdxCollateral) {
        to.tcb_info.clone_from(&from.tcb_info);
        to.tcb_info_signature.clone_from(&from.tcb_info_signature);
        to.tcb_info_issuer_chain
            .clone_from(&from.tcb_info_issuer_chain);
    }
}
