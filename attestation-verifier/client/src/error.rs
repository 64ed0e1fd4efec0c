//! What can go wrong before there is an answer to judge, and the verdict that follows from it.

use std::time::Duration;

use attestation_verifier::verdict::{Fault, Verdict, refusal, usage};

use crate::http::Answer;
use crate::oip::OipError;

/// Why there is no answer. Each kind has a stable check id, as every refusal has ([`Error::deciding`]).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `usage`, exit 1: a URL, a setting or a question that cannot be used. Nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// `connection.io`, exit 1: unreachable, broken off, truncated.
    #[error("{doing}: {reason}")]
    Io {
        /// What was being done, and with whom.
        doing: String,
        /// What went wrong.
        reason: String,
    },
    /// `connection.tls`, exit 3: handshake, version, signature of the handshake, altered records.
    #[error("{doing}: {reason}")]
    Tls {
        /// What was being done, and with whom.
        doing: String,
        /// What went wrong.
        reason: String,
    },
    /// `connection.late`, exit 4, retry: no answer in time.
    #[error("{doing}: nothing within {} s", limit.as_secs_f32())]
    Late {
        /// What was being waited for.
        doing: String,
        /// For how long.
        limit: Duration,
    },
    /// `session.refused`, exit 4: the server answered the request for a session with a problem. 503 is
    /// class retry, all else policy. Nothing of the caller's was sent.
    #[error("the server gives no session: status {status}, {reason}")]
    SessionRefused {
        /// HTTP status.
        status: u16,
        /// The server's own words, harmless on a terminal.
        reason: String,
        /// Seconds after which to try again, if it said.
        retry_after: Option<u64>,
    },
    /// `ohttp.refused`, exit 4: the sealed request was refused in the open, by the enclave or by the host, whose word it may be. 429 and
    /// 503 are class retry, all else policy. Whether the enclave answered it all the same is not known.
    #[error("the sealed request was refused unopened: status {status}, {reason}")]
    OhttpRefused {
        /// HTTP status.
        status: u16,
        /// The reason that was given, harmless on a terminal.
        reason: String,
        /// Seconds after which to try again, if that was said.
        retry_after: Option<u64>,
    },
    /// The sealed request was sent, and refused in the open as sealed to another key (422); then no other key was proven, for the reason
    /// in this, whose check and exit code it has. Whether the enclave answered the request all the same is not known: a host may
    /// have handed it over and hidden the answer.
    #[error(
        "the sealed request was sent, and refused unopened (422); then no other key was proven: {0}"
    )]
    NotResealed(Box<Error>),
    /// `ohttp.answer`, exit 3: no answer that is sealed for this request, or not all of it; or the enclave says that a copy of the
    /// request came before it, whose answer somebody else was given, and cannot read.
    #[error("the answer to a sealed request: {0}")]
    OhttpAnswer(String),
    /// `answer.format`, exit 2: what came is not what the formats say.
    #[error("{reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
        /// The answer, as far as it was read.
        answer: Option<Box<Answer>>,
    },
    /// `answer.refused`, exit 4: the enclave refused the request and gave no receipt for that.
    #[error("refused without a receipt: status {}, {}", .0.status, .0.problem())]
    Answered(Box<Answer>),
    /// A judgement that does not end in exit 0: of the session, or of the policy's own demands. Nothing of
    /// the caller's was sent.
    #[error("{}", because(.0))]
    Refused(Box<Verdict>),
}

const SENT_BEFORE: &str = "The question had been sent before, sealed to a key that was proven, and the server said that it was not opened. That is nobody's \
     word: whether the enclave answered it all the same is not known.";

impl Error {
    /// The verdict that follows: one failing check, or the judgement itself.
    pub fn verdict(&self) -> Verdict {
        let fault = match self {
            Error::Refused(verdict) => return (**verdict).clone(),
            Error::NotResealed(reason) => {
                let mut verdict = reason.verdict();
                verdict.context.residual_risks.push(SENT_BEFORE.to_owned());
                return verdict;
            }
            Error::Usage(message) => return usage("usage", message.clone()),
            Error::Io { .. } => Fault::Usage,
            Error::Tls { .. } | Error::OhttpAnswer(_) => Fault::NotAuthentic,
            Error::Late { .. } => Fault::NotYet,
            Error::SessionRefused { status: 503, .. } => Fault::NotYet,
            Error::OhttpRefused {
                status: 429 | 503, ..
            } => Fault::NotYet,
            Error::SessionRefused { .. } | Error::OhttpRefused { .. } | Error::Answered(_) => {
                Fault::Policy
            }
            Error::Malformed { .. } => Fault::Malformed,
        };
        refusal(self.id(), fault, self.to_string(), None)
    }

    /// Id of the check that decides. Of a judgement that holds, but of a simulated platform that nobody asked
    /// for (exit 6), it is `root.simulated`.
    pub fn deciding(&self) -> &str {
        match self {
            Error::Refused(verdict) => verdict.deciding().unwrap_or("root.simulated"),
            Error::NotResealed(reason) => reason.deciding(),
            other => other.id(),
        }
    }

    /// The exit code: never 0.
    pub fn exit(&self) -> u8 {
        self.verdict().exit()
    }

    fn id(&self) -> &'static str {
        match self {
            Error::Usage(_) => "usage",
            Error::Io { .. } => "connection.io",
            Error::Tls { .. } => "connection.tls",
            Error::Late { .. } => "connection.late",
            Error::SessionRefused { .. } => "session.refused",
            Error::OhttpRefused { .. } => "ohttp.refused",
            Error::OhttpAnswer(_) => "ohttp.answer",
            Error::NotResealed(reason) => reason.id(),
            Error::Malformed { .. } => "answer.format",
            Error::Answered(_) => "answer.refused",
            Error::Refused(_) => "session",
        }
    }

    pub(crate) fn malformed(reason: impl Into<String>) -> Error {
        Error::Malformed {
            reason: reason.into(),
            answer: None,
        }
    }

    pub(crate) fn late(doing: impl Into<String>, limit: Duration) -> Error {
        Error::Late {
            doing: doing.into(),
            limit,
        }
    }

    /// Input and output that failed. TLS speaks through the same errors: what it refuses is no accident.
    pub(crate) fn of_io(doing: &str, error: &(dyn std::error::Error + 'static)) -> Error {
        let doing = doing.to_owned();
        match rustls_error(error) {
            Some(tls) => Error::Tls {
                doing,
                reason: tls.to_string(),
            },
            None => Error::Io {
                doing,
                reason: causes(error),
            },
        }
    }

    pub(crate) fn of_http(doing: &str, error: &hyper::Error) -> Error {
        match error.is_parse() {
            true => Error::malformed(format!("{doing}: no HTTP/1.1: {}", causes(error))),
            false => Error::of_io(doing, error),
        }
    }
}

impl From<OipError> for Error {
    fn from(error: OipError) -> Error {
        Error::Usage(error.to_string())
    }
}

/// The deciding check of a verdict and its reason, in a line.
pub(crate) fn because(verdict: &Verdict) -> String {
    match verdict.checks.deciding() {
        Some(check) => format!("{}: {}", check.id, check.reason),
        None if verdict.exit() == 0 => "it holds".into(),
        None => {
            "root.simulated: it holds, but on a simulated platform, which was not asked for".into()
        }
    }
}

/// The error of TLS somewhere below, if there is one.
fn rustls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // An io::Error's source is its inner error's source, not the inner error itself.
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(|io| io.get_ref());
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// An error and what caused it, in a line.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
