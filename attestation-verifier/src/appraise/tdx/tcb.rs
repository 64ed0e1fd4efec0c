//! Where a platform stands at the levels that Intel signs (Intel PCS API v4, "TDX TCB Info V3", steps of the
//! selection of a TCB level; "Enclave Identity V2").
//!
//! Three things have a level of their own: the platform (processor, its microcode, the PCE), the TDX module, and the
//! quoting enclave. A TD of TDX 1.5 shows two states of the first two: as it was launched, and as it is now, after the
//! module was updated under it. All of them count, and the worst decides.

use std::collections::BTreeSet;

use crate::authenticate::intel::AuthenticTdx;
use crate::parse::tdx::tcb::{
    IsvLevel, TcbInfo, TcbLevel, TcbStatus, TdxModule, TdxModuleIdentity,
};

/// One thing at its level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// What it is, for people.
    pub(super) name: &'static str,
    pub(super) status: TcbStatus,
    /// `tcbDate`, Unix seconds: what was known by then is fixed at this level.
    pub(super) date: u64,
    pub(super) advisories: Vec<String>,
}

/// All that has a level, at its level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) parts: Vec<Part>,
    /// Of all parts together.
    pub(super) status: TcbStatus,
    /// Of all parts, each once, in order.
    pub(super) advisories: BTreeSet<String>,
    /// The TD was launched under a TDX module that is out of date, and the one that runs now is not.
    pub(super) relaunch: bool,
}

impl Standing {
    /// Chooses the levels.
    ///
    /// # Errors
    /// In words what reaches none.
    pub(super) fn of(authentic: &AuthenticTdx) -> Result<Standing, String> {
        let info = authentic.tcb_info();
        let report = authentic.report();
        let mut parts = Vec::new();
        let launch = [
            "platform, when the TD was launched",
            "TDX module that launched the TD",
        ];
        let launched = state(authentic, info, &report.tee_tcb_svn, launch, &mut parts)?;
        let mut now = launched;
        if let Some(svn) = report.tee_tcb_svn_2 {
            let names = ["platform, now", "TDX module that runs now"];
            now = state(authentic, info, &svn, names, &mut parts)?;
        }
        let qe = authentic.quote().qe_report.isvsvn();
        let levels = &authentic.qe_identity().levels;
        parts.push(reached("quoting enclave", levels, qe, OF_ENCLAVES)?);
        let outdated = |status| Flaws::of(status).outdated;
        Ok(Standing {
            status: parts
                .iter()
                .map(|part| part.status)
                .fold(TcbStatus::UpToDate, converged),
            advisories: parts
                .iter()
                .flat_map(|part| part.advisories.iter().cloned())
                .collect(),
            relaunch: outdated(launched) && !outdated(now),
            parts,
        })
    }
}

/// The levels of platform and TDX module in one state of the module. Returns their status together.
fn state(
    authentic: &AuthenticTdx,
    info: &TcbInfo,
    tee_tcb_svn: &[u8; 16],
    names: [&'static str; 2],
    parts: &mut Vec<Part>,
) -> Result<TcbStatus, String> {
    let [name, module] = names;
    let pck = authentic.pck();
    let level = info
        .levels
        .iter()
        .find(|level| {
            at_least(&pck.comp_svn, &level.sgx_svn)
                && pck.pce_svn >= level.pce_svn
                && tdx_at_least(tee_tcb_svn, level)
        })
        .ok_or_else(|| format!("TCB info has no level that this is at or above: {name}"))?;
    let mut status = level.status;
    parts.push(Part {
        name,
        status: level.status,
        date: level.tcb_date,
        advisories: level.advisories.clone(),
    });
    let [isvsvn, major, ..] = *tee_tcb_svn;
    if major > 0 {
        let identity = identity(info, major)?;
        let part = reached(module, &identity.levels, isvsvn.into(), OF_MODULES)?;
        status = converged(status, part.status);
        parts.push(part);
    }
    Ok(status)
}

fn at_least(found: &[u8], level: &[u8]) -> bool {
    found.iter().zip(level).all(|(found, level)| found >= level)
}

/// The first two components are the module's ISVSVN and major version. From major version 1 on they are not compared: the module
/// has levels of its own then.
fn tdx_at_least(tee_tcb_svn: &[u8; 16], level: &TcbLevel) -> bool {
    let [found_svn, found_major, found @ ..] = tee_tcb_svn;
    let [level_svn, level_major, rest @ ..] = &level.tdx_svn;
    let module = *found_major > 0 || (found_svn >= level_svn && found_major >= level_major);
    module && at_least(found, rest)
}

fn identity(info: &TcbInfo, major: u8) -> Result<&TdxModuleIdentity, String> {
    let id = format!("TDX_{major:02X}");
    let mut identities = info.tdx_module_identities.iter();
    identities
        .find(|identity| identity.id.eq_ignore_ascii_case(&id))
        .ok_or_else(|| format!("TCB info names no TDX module {id}"))
}

/// What Intel says of TDX modules.
const OF_MODULES: &[TcbStatus] = &[
    TcbStatus::UpToDate,
    TcbStatus::OutOfDate,
    TcbStatus::Revoked,
];
/// What Intel says of quoting enclaves.
const OF_ENCLAVES: &[TcbStatus] = &[
    TcbStatus::UpToDate,
    TcbStatus::ConfigurationNeeded,
    TcbStatus::OutOfDate,
    TcbStatus::OutOfDateConfigurationNeeded,
    TcbStatus::Revoked,
];

/// The first level that a security version reaches. `words` are the statuses that Intel gives to such things: of another nobody
/// knows what it means there.
fn reached(
    name: &'static str,
    levels: &[IsvLevel],
    isvsvn: u16,
    words: &[TcbStatus],
) -> Result<Part, String> {
    let level = levels.iter().find(|level| isvsvn >= level.isvsvn);
    let level = level
        .ok_or_else(|| format!("ISVSVN {isvsvn} is below every level that Intel names: {name}"))?;
    if !words.contains(&level.status) {
        let word = level.status.word();
        return Err(format!("{word} is no status of: {name}"));
    }
    Ok(Part {
        name,
        status: level.status,
        date: level.tcb_date,
        advisories: level.advisories.clone(),
    })
}

/// What TCB info says of a TDX module of the quote's major version.
///
/// # Errors
/// In words: it says nothing.
pub(super) fn module(authentic: &AuthenticTdx) -> Result<&TdxModule, String> {
    let info = authentic.tcb_info();
    match authentic.report().tee_tcb_svn {
        [_, 0, ..] => Ok(&info.tdx_module),
        [_, major, ..] => identity(info, major).map(|identity| &identity.module),
    }
}

/// What a status says is wrong.
#[derive(Clone, Copy)]
struct Flaws {
    revoked: bool,
    outdated: bool,
    configuration: bool,
    software: bool,
}

impl Flaws {
    fn of(status: TcbStatus) -> Flaws {
        use TcbStatus as S;
        Flaws {
            revoked: status == S::Revoked,
            outdated: matches!(status, S::OutOfDate | S::OutOfDateConfigurationNeeded),
            configuration: matches!(
                status,
                S::ConfigurationNeeded
                    | S::ConfigurationAndSwHardeningNeeded
                    | S::OutOfDateConfigurationNeeded
            ),
            software: matches!(
                status,
                S::SwHardeningNeeded | S::ConfigurationAndSwHardeningNeeded
            ),
        }
    }
}

/// The status of two things together: everything that is wrong with either.
pub(super) fn converged(a: TcbStatus, b: TcbStatus) -> TcbStatus {
    let (a, b) = (Flaws::of(a), Flaws::of(b));
    let configuration = a.configuration || b.configuration;
    match (
        a.revoked || b.revoked,
        a.outdated || b.outdated,
        configuration,
        a.software || b.software,
    ) {
        (true, ..) => TcbStatus::Revoked,
        (_, true, true, _) => TcbStatus::OutOfDateConfigurationNeeded,
        (_, true, false, _) => TcbStatus::OutOfDate,
        (_, _, true, true) => TcbStatus::ConfigurationAndSwHardeningNeeded,
        (_, _, true, false) => TcbStatus::ConfigurationNeeded,
        (_, _, false, true) => TcbStatus::SwHardeningNeeded,
        (_, _, false, false) => TcbStatus::UpToDate,
    }
}

/// Whether a status needs a grace.
pub(super) fn out_of_date(status: TcbStatus) -> bool {
    Flaws::of(status).outdated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_two_things_is_everything_that_is_wrong_with_either() {
        use TcbStatus as S;
        for (a, b, both) in [
            (S::UpToDate, S::UpToDate, S::UpToDate),
            (S::UpToDate, S::OutOfDate, S::OutOfDate),
            (S::SwHardeningNeeded, S::OutOfDate, S::OutOfDate),
            (
                S::ConfigurationNeeded,
                S::OutOfDate,
                S::OutOfDateConfigurationNeeded,
            ),
            (
                S::ConfigurationAndSwHardeningNeeded,
                S::OutOfDate,
                S::OutOfDateConfigurationNeeded,
            ),
            (
                S::SwHardeningNeeded,
                S::ConfigurationNeeded,
                S::ConfigurationAndSwHardeningNeeded,
            ),
            (S::OutOfDateConfigurationNeeded, S::Revoked, S::Revoked),
        ] {
            assert_eq!(converged(a, b), both, "{a:?} {b:?}");
            assert_eq!(converged(b, a), both, "{b:?} {a:?}");
        }
        for status in S::ALL {
            assert_eq!(converged(status, status), status);
            assert_eq!(converged(S::UpToDate, status), status);
        }
    }
}
