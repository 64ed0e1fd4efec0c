//! The quote sources of a machine, each tried once, and what each gave.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Serialize;
use touchstone_formats::evidence::{EventLog, Tee, quote_report_data};
use touchstone_formats::limits::MAX_QUOTE;
use touchstone_quote_source::{SevGuest, SourceError, Tsm};

use super::agent;
use super::surroundings::{MOUNT, Root, TSM_MODULE};
use crate::commands::evidence::unpadded;

/// How a source ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It gave a quote over what was asked for.
    Quoted,
    /// It is not there.
    Absent,
    /// It is there, and gave none.
    Failed,
    /// What it gave is not what its interface says.
    Malformed,
    /// It gave a quote over something else.
    WrongReportData,
}

/// What a source gave.
pub struct Given {
    pub tee: Tee,
    /// As its source gave it.
    pub quote: Vec<u8>,
    pub event_log: Option<EventLog>,
    /// AMD's certificate table.
    pub certificates: Option<Vec<u8>>,
}

/// Why a source gave no quote.
pub struct Trouble {
    state: State,
    found: String,
    advice: String,
}

impl Trouble {
    pub fn absent(found: impl Into<String>, advice: impl Into<String>) -> Trouble {
        Trouble::new(State::Absent, found, advice)
    }

    pub fn failed(found: impl Into<String>, advice: impl Into<String>) -> Trouble {
        Trouble::new(State::Failed, found, advice)
    }

    pub fn malformed(found: impl Into<String>, advice: impl Into<String>) -> Trouble {
        Trouble::new(State::Malformed, found, advice)
    }

    fn new(state: State, found: impl Into<String>, advice: impl Into<String>) -> Trouble {
        // A stranger's words may be in it.
        let found = found.into().chars().take(MOST_FOUND).collect();
        let advice = advice.into();
        Trouble {
            state,
            found,
            advice,
        }
    }
}

/// Most characters that are repeated of what a source said or did.
const MOST_FOUND: usize = 400;

/// A source, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tried {
    /// `configfs-tsm`, `sev-guest` or `quote-agent`.
    pub source: &'static str,
    /// Where it was looked for.
    pub path: String,
    pub state: State,
    /// What was found, in words.
    pub found: String,
    /// What to do about it; none where it gave a quote.
    pub advice: Option<String>,
    /// How long its quote took.
    pub milliseconds: Option<u64>,
}

/// Where sources are, and how to ask them.
pub struct Sources<'a> {
    pub tsm: PathBuf,
    pub sev_guest: PathBuf,
    pub agent: Option<PathBuf>,
    pub privilege: Option<u8>,
    pub root: &'a Root<'a>,
    /// How long each may take.
    pub limit: Duration,
}

impl Sources<'_> {
    /// Tries them all, in this order.
    pub fn tried(&self, report_data: &[u8; 64]) -> Vec<(Tried, Option<Given>)> {
        let (asked, privilege, limit) = (*report_data, self.privilege, self.limit);
        let (tsm, device) = (self.tsm.clone(), self.sev_guest.clone());
        let tsm_quote = move || {
            let entry = format!("touchstone-doctor-{}", std::process::id());
            let mut tsm = Tsm::open(&tsm, &entry, privilege)?;
            patiently(|| tsm.quote(&asked))
        };
        let device_quote = move || {
            let mut device = SevGuest::open(&device, privilege)?;
            patiently(|| device.quote(&asked))
        };
        let mut all = vec![
            self.one("configfs-tsm", &self.tsm, &asked, || {
                self.kernel(limit, tsm_quote, |error| self.tsm_advice(error))
            }),
            self.one("sev-guest", &self.sev_guest, &asked, || {
                self.kernel(limit, device_quote, device_advice)
            }),
        ];
        if let Some(socket) = &self.agent {
            all.push(self.one("quote-agent", socket, &asked, || {
                agent::ask(socket, &asked, limit)
            }));
        }
        all
    }

    fn one(
        &self,
        source: &'static str,
        path: &Path,
        asked: &[u8; 64],
        ask: impl FnOnce() -> Result<Given, Trouble>,
    ) -> (Tried, Option<Given>) {
        let start = Instant::now();
        let given = ask().and_then(|given| holds(given, asked));
        let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut tried = Tried {
            source,
            path: path.display().to_string(),
            state: State::Quoted,
            found: String::new(),
            advice: None,
            milliseconds: None,
        };
        match given {
            Ok(given) => {
                let what = match given.tee {
                    Tee::SevSnp => "an SEV-SNP report",
                    Tee::Tdx => "a TDX quote",
                };
                tried.found = format!("{what}, {} bytes, over what was asked", given.quote.len());
                tried.milliseconds = Some(milliseconds);
                (tried, Some(given))
            }
            Err(trouble) => {
                tried.state = trouble.state;
                tried.found = trouble.found;
                tried.advice = Some(trouble.advice);
                (tried, None)
            }
        }
    }

    /// Asks an interface of the kernel's, which may block, for so long.
    fn kernel(
        &self,
        limit: Duration,
        ask: impl FnOnce() -> Result<touchstone_quote_source::Report, SourceError> + Send + 'static,
        advice: impl FnOnce(&SourceError) -> String,
    ) -> Result<Given, Trouble> {
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || send.send(ask()));
        let Ok(answer) = receive.recv_timeout(limit) else {
            let found = format!("no answer within {} s", limit.as_secs());
            return Err(Trouble::failed(found, SLOW));
        };
        let report = answer.map_err(|error| {
            let state = match error {
                SourceError::Absent { .. } => State::Absent,
                SourceError::Malformed { .. } => State::Malformed,
                _ => State::Failed,
            };
            Trouble::new(state, error.to_string(), advice(&error))
        })?;
        Ok(Given {
            tee: report.tee,
            quote: report.quote,
            event_log: match report.tee {
                Tee::Tdx => self.root.event_log(),
                Tee::SevSnp => None,
            },
            certificates: report.certificates,
        })
    }

    fn tsm_advice(&self, error: &SourceError) -> String {
        match error {
            SourceError::Absent { .. } if self.root.has_tsm_release() == Some(false) => {
                "Boot Linux 6.7 or newer: configfs-tsm came with it.".into()
            }
            SourceError::Absent { .. } if !self.root.configfs() => MOUNT.into(),
            SourceError::Absent { .. } => TSM_MODULE.into(),
            SourceError::NoProvider { .. } => {
                "No driver gives reports here: this is no confidential VM, or its driver is not loaded (modprobe sev-guest, or modprobe tdx-guest).".into()
            }
            SourceError::UnknownProvider { .. } => {
                "This version reads the reports of sev_guest and tdx_guest alone.".into()
            }
            other => common_advice(other),
        }
    }
}

fn device_advice(error: &SourceError) -> String {
    match error {
        SourceError::Absent { .. } => {
            "With SEV-SNP: modprobe sev-guest. Where configfs-tsm gives quotes, and on TDX, it is not needed.".into()
        }
        SourceError::NoProvider { .. } => {
            "The driver no longer talks to the firmware: start the VM anew.".into()
        }
        other => common_advice(other),
    }
}

fn common_advice(error: &SourceError) -> String {
    match error {
        SourceError::Busy { .. } => {
            "Somebody else is having reports made, or the host throttles them: run doctor again. If it stays so, find out who it is."
        }
        SourceError::Raced { .. } => "Another process writes to doctor's own entry: find out which, and stop it.",
        SourceError::Denied { .. } => "Run doctor as root.",
        SourceError::Privilege { .. } => "Leave --privilege out, or name a level that this guest may ask for.",
        SourceError::Refused { .. } => {
            "The firmware or the host refused. After an error of the host the driver gives up: start the VM anew, and tell whoever runs the host."
        }
        SourceError::Malformed { .. } => {
            "The interface does not behave as the kernel documents it: update the kernel, or find out what stands in its place."
        }
        _ => "See the kernel's log for what it says at this time.",
    }
    .into()
}

const SLOW: &str = "The host throttles or the firmware hangs. Run doctor again with a longer --timeout; if it stays so, tell whoever runs the host.";

/// How often a source that is busy is asked, and how long it is left in peace between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

fn patiently<T>(mut ask: impl FnMut() -> Result<T, SourceError>) -> Result<T, SourceError> {
    let mut tries = 1;
    loop {
        match ask() {
            Err(error) if error.is_transient() && tries < TRIES => {
                tries += 1;
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

/// Whether what was given is a quote of its kind's size over what was asked for, as an enclave would take it. Buffers may be longer
/// than the TDX quote in them.
fn holds(mut given: Given, asked: &[u8; 64]) -> Result<Given, Trouble> {
    let end = match given.tee {
        Tee::SevSnp => given.quote.len(),
        Tee::Tdx => unpadded(&given.quote).len(),
    };
    given.quote.truncate(end);
    if end > MAX_QUOTE {
        let found = format!("a quote of {end} bytes; the longest has {MAX_QUOTE}");
        return Err(Trouble::malformed(found, WRONG_ANSWER));
    }
    match quote_report_data(given.tee, &given.quote) {
        Some(found) if found == *asked => Ok(given),
        Some(_) => Err(Trouble::new(
            State::WrongReportData,
            "a quote over other bytes than were asked for",
            WRONG_ANSWER,
        )),
        None => {
            let found = format!("{end} bytes that are no {} quote", given.tee);
            Err(Trouble::malformed(found, WRONG_ANSWER))
        }
    }
}

const WRONG_ANSWER: &str =
    "Believe nothing that this source gives. Find out what answers there in place of the hardware.";
