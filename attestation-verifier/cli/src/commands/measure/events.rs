//! Event logs from which `touchstone measure tdx` takes RTMR0. A log proves nothing; what is taken from it is a value that
//! somebody then signs into a manifest, and it is taken only from a log that is of the same firmware, kernel, initrd and
//! command line.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use attestation_verifier::events::{CCEL, DSTACK, Replay, replay};
use attestation_verifier::verdict::Fault;
use touchstone_formats::EventLog;
use touchstone_formats::text::Base64Bytes;
use touchstone_launch::Sha384;
use touchstone_launch::tdx::tdvf::Tdvf;

use crate::files;
use crate::output::Failure;

/// The check under which a log is refused: exit 2 if it cannot be read, 4 if it is of something else.
const EVENT_LOG: &str = "measure.event_log";

/// The largest log, in bytes.
const MAX_LOG: u64 = 8 << 20;

/// EV_EFI_PLATFORM_FIRMWARE_BLOB2: as which firmware measures its variables.
const FIRMWARE_BLOB: u32 = 0x8000_000a;

/// A log, replayed.
pub struct Seen {
    path: PathBuf,
    replay: Replay,
}

impl Seen {
    /// Reads a log: dstack's JSON list, or the bytes of the ACPI table CCEL.
    pub fn read(path: &Path) -> Result<Seen, Failure> {
        let data = files::read(path, "event log", MAX_LOG)?;
        let format = match data.trim_ascii_start().first() {
            Some(b'[') => DSTACK,
            _ => CCEL,
        };
        let log = EventLog {
            format: format.to_owned(),
            data: Base64Bytes(data),
        };
        let path = path.to_path_buf();
        match replay(&log) {
            Ok(replay) => Ok(Seen { path, replay }),
            Err(error) => {
                let error = anyhow::Error::from(error).context(path.display().to_string());
                Err(Failure::malformed(EVENT_LOG, error))
            }
        }
    }

    /// Its RTMR0, if its firmware had the variables that this firmware has.
    pub fn rtmr0_with(&self, firmware: &Tdvf<'_>) -> Result<Sha384, Failure> {
        for variables in firmware.variables() {
            let digest = Sha384::of(variables);
            let events = &self.replay.events;
            let mut of_variables = events
                .iter()
                .filter(|event| event.register == 0 && event.kind == FIRMWARE_BLOB);
            if !of_variables.any(|event| event.digest == digest.0) {
                return Err(self.other(format!(
                    "of another firmware: no event of RTMR0 is of this firmware's variables (SHA-384 {digest})"
                )));
            }
        }
        let [rtmr0, ..] = self.replay.rtmr;
        Ok(Sha384(rtmr0))
    }

    /// Whether its RTMR1 and RTMR2 are these.
    pub fn is_of(&self, rtmr1: Option<Sha384>, rtmr2: Option<Sha384>) -> bool {
        let [_, log1, log2, _] = self.replay.rtmr;
        rtmr1 == Some(Sha384(log1)) && rtmr2 == Some(Sha384(log2))
    }

    /// The refusal of a log whose RTMR1 and RTMR2 are none that were computed, of which these are the first.
    pub fn of_another_boot(&self, computed: (Option<Sha384>, Option<Sha384>)) -> Failure {
        let [_, log1, log2, _] = self.replay.rtmr;
        let register = |name, log, computed: Option<Sha384>| match computed {
            Some(computed) if computed != Sha384(log) => {
                format!("; {name} is {}, computed {computed}", Sha384(log))
            }
            _ => String::new(),
        };
        self.other(format!(
            "of another kernel, initrd or command line, or of another QEMU or firmware{}{}",
            register("RTMR1", log1, computed.0),
            register("RTMR2", log2, computed.1),
        ))
    }

    fn other(&self, what: String) -> Failure {
        Failure {
            fault: Fault::Policy,
            id: EVENT_LOG,
            error: anyhow!("{}: {what}", self.path.display()),
        }
    }
}
