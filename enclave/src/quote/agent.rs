//! Client of the quote agent protocol (docs/quote-agent.md): one JSON object a line over a Unix socket.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    sync::PoisonError,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};
use touchstone_formats::quote_agent::{Answer, ErrorKind, MAX_LINE, Request};

use super::{Quote, QuoteError, QuoteFuture, QuoteSource};

/// Most characters of an agent's message that are logged.
const MESSAGE_MAX: usize = 200;

/// A quote agent behind a Unix socket.
///
/// The connection is kept from quote to quote. It is given up after anything but a well-formed answer, also
/// when the caller's patience ends: then an answer that comes late cannot be taken for the next one's.
pub struct AgentSource {
    path: PathBuf,
    idle: Mutex<Option<BufReader<UnixStream>>>,
}

impl AgentSource {
    /// An agent at this path; connects when first asked.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            idle: Mutex::new(None),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Option<BufReader<UnixStream>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, report_data: [u8; 64]) -> Result<Quote, QuoteError> {
        let request = Request::new(report_data).to_line();
        // Taken out, and put back only in good order: dropping this future closes the connection.
        let kept = self.idle().take();
        let (stream, line) = match kept {
            // An agent may have been restarted since: an old connection that ends without an answer is
            // no failure, a new one is.
            Some(stream) => match exchange(stream, &request).await {
                Err(QuoteError::Failed(_)) => exchange(self.connect().await?, &request).await?,
                other => other?,
            },
            None => exchange(self.connect().await?, &request).await?,
        };
        let answer =
            Answer::parse(&line).map_err(|error| QuoteError::Malformed(error.to_string()))?;
        *self.idle() = Some(stream);
        match answer {
            Answer::Quote {
                tee,
                quote,
                event_log,
            } => Ok(Quote {
                tee,
                quote,
                event_log,
            }),
            Answer::Error {
                error: ErrorKind::Busy,
                ..
            } => Err(QuoteError::Busy),
            Answer::Error {
                error: ErrorKind::Failed,
                message,
            } => {
                let message: String = message
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(MESSAGE_MAX)
                    .collect();
                Err(QuoteError::Failed(format!(
                    "the quote agent says: {message:?}"
                )))
            }
        }
    }

    async fn connect(&self) -> Result<BufReader<UnixStream>, QuoteError> {
        match UnixStream::connect(&self.path).await {
            Ok(stream) => Ok(BufReader::new(stream)),
            Err(error) => Err(QuoteError::Failed(format!(
                "connecting to {}: {error}",
                self.path.display()
            ))),
        }
    }
}

impl QuoteSource for AgentSource {
    fn quote(&self, report_data: [u8; 64]) -> QuoteFuture<'_> {
        Box::pin(self.ask(report_data))
    }
}

/// Sends one line and reads one.
async fn exchange(
    mut stream: BufReader<UnixStream>,
    request: &[u8],
) -> Result<(BufReader<UnixStream>, Vec<u8>), QuoteError> {
    let failed =
        |error: std::io::Error| QuoteError::Failed(format!("the quote agent's socket: {error}"));
    if !stream.buffer().is_empty() {
        return Err(QuoteError::Failed(
            "the quote agent sent something nobody asked for".into(),
        ));
    }
    stream.write_all(request).await.map_err(failed)?;
    let mut line = Vec::new();
    let limit = MAX_LINE as u64;
    (&mut stream)
        .take(limit)
        .read_until(b'\n', &mut line)
        .await
        .map_err(failed)?;
    match line.last() {
        Some(b'\n') => Ok((stream, line)),
        _ if line.len() >= MAX_LINE => {
            Err(QuoteError::Malformed("a line of more than 4 MiB".into()))
        }
        None => Err(QuoteError::Failed(
            "the quote agent closed the connection without an answer".into(),
        )),
        Some(_) => Err(QuoteError::Malformed("a line that breaks off".into())),
    }
}
