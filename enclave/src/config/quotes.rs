//! Where quotes come from: `[quote] source`, and the keys that each source has.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use touchstone_quote_source::{MAX_PRIVILEGE, is_entry_name};
use touchstone_settings::{ConfigError, Section};

use super::path_text;

/// Kinds of quote source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuoteSourceConfig {
    /// The quote agent protocol over the Unix socket at this path.
    Agent(PathBuf),
    /// One of the kernel's own interfaces.
    Kernel(KernelQuotes),
}

/// The kernel's own interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelQuotes {
    /// configfs-tsm.
    Tsm {
        /// The folder of reports.
        reports: PathBuf,
        /// The entry in it.
        entry: String,
        /// The privilege level to ask for; `None`: the entry's own.
        privilege: Option<u8>,
        /// The firmware's event log, of TDX.
        event_log: Option<PathBuf>,
    },
    /// `/dev/sev-guest`.
    SevGuest {
        /// The device.
        device: PathBuf,
        /// The VMPL to ask for; `None`: 0.
        privilege: Option<u8>,
    },
}

impl QuoteSourceConfig {
    /// Reads the keys of the source that is chosen, and no others.
    pub(super) fn read(quote: &mut Section) -> Result<Self, ConfigError> {
        let source = quote.choice("source", "agent", &["agent", "tsm", "sev-guest"])?;
        let kernel = match source.as_str() {
            "tsm" => KernelQuotes::Tsm {
                reports: or(quote.path("tsm")?, "/sys/kernel/config/tsm/report"),
                entry: quote
                    .optional(
                        "entry",
                        "1 to 64 of a-z A-Z 0-9 - _ . and no . at the beginning",
                        |text| is_entry_name(text).then(|| text.to_owned()),
                    )?
                    .unwrap_or_else(|| "touchstone".into()),
                privilege: privilege(quote)?,
                event_log: quote.path("event_log")?,
            },
            "sev-guest" => KernelQuotes::SevGuest {
                device: or(quote.path("device")?, "/dev/sev-guest"),
                privilege: privilege(quote)?,
            },
            _ => return Ok(Self::Agent(quote.required_path("agent")?)),
        };
        Ok(Self::Kernel(kernel))
    }

    /// What of it goes into the object that is hashed.
    pub(super) fn object(&self) -> Map<String, Value> {
        let object = match self {
            Self::Agent(agent) => json!({"source": "agent", "agent": path_text(agent)}),
            Self::Kernel(KernelQuotes::Tsm {
                reports,
                entry,
                privilege,
                event_log,
            }) => json!({
                "source": "tsm",
                "tsm": path_text(reports),
                "entry": entry,
                "privilege": privilege,
                "event_log": event_log.as_deref().map(path_text),
            }),
            Self::Kernel(KernelQuotes::SevGuest { device, privilege }) => json!({
                "source": "sev-guest",
                "device": path_text(device),
                "privilege": privilege,
            }),
        };
        match object {
            Value::Object(map) => map,
            _ => unreachable!("written as an object above"),
        }
    }
}

fn or(path: Option<PathBuf>, default: &str) -> PathBuf {
    path.unwrap_or_else(|| default.into())
}

fn privilege(quote: &mut Section) -> Result<Option<u8>, ConfigError> {
    let level = quote.optional_integer("privilege", 0..=u64::from(MAX_PRIVILEGE))?;
    Ok(level.map(|level| level as u8))
}
