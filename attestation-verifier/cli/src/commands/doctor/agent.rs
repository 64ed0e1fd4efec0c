//! A quote agent, asked once (docs/quote-agent.md).

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use touchstone_formats::quote_agent::{Answer, ErrorKind as AgentError, MAX_LINE, Request};

use super::sources::{Given, Trouble};

/// Most characters of an agent's message that are repeated.
const MESSAGE_MAX: usize = 200;

/// Asks for one quote. Nothing that the agent does takes longer than `limit`, or more memory than one line.
pub fn ask(socket: &Path, report_data: &[u8; 64], limit: Duration) -> Result<Given, Trouble> {
    let deadline = Instant::now() + limit;
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Trouble::absent("there is no such socket", START_AGENT),
        ErrorKind::ConnectionRefused => {
            Trouble::failed("nobody listens on this socket", START_AGENT)
        }
        ErrorKind::PermissionDenied => Trouble::failed(
            error.to_string(),
            "Run doctor as the user whom the agent serves (the enclave's), or as root.",
        ),
        _ => Trouble::failed(format!("connecting: {error}"), START_AGENT),
    })?;
    let line = exchange(&mut stream, &Request::new(*report_data).to_line(), deadline)?;
    match Answer::parse(&line) {
        Ok(Answer::Quote {
            tee,
            quote,
            event_log,
        }) => Ok(Given {
            tee,
            quote,
            event_log,
            certificates: None,
        }),
        Ok(Answer::Error { error, message }) => {
            let message: String = message.chars().take(MESSAGE_MAX).collect();
            let (word, advice) = match error {
                AgentError::Busy => ("busy", AGAIN),
                AgentError::Failed => ("failed", SEE_AGENT),
            };
            Err(Trouble::failed(
                format!("the agent says: {word}, {message:?}"),
                advice,
            ))
        }
        Err(error) => Err(Trouble::malformed(
            format!("no answer of version 1: {error}"),
            SEE_AGENT,
        )),
    }
}

const START_AGENT: &str = "Start the platform's quote agent, and name its socket by --agent.";
const SEE_AGENT: &str =
    "Look at the agent's own log; what it has to answer is in docs/quote-agent.md.";
const AGAIN: &str =
    "Somebody else is having quotes made: run doctor again. If it stays so, find out who it is.";

/// Sends one line and reads one.
fn exchange(
    stream: &mut UnixStream,
    request: &[u8],
    deadline: Instant,
) -> Result<Vec<u8>, Trouble> {
    let broken =
        |error: std::io::Error| Trouble::failed(format!("the agent's socket: {error}"), SEE_AGENT);
    let late = || Trouble::failed("no answer in time", SEE_AGENT);
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(late())
        } else {
            Ok(Some(left))
        }
    };
    stream.set_write_timeout(left()?).map_err(broken)?;
    stream.write_all(request).map_err(broken)?;
    let mut line = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        stream.set_read_timeout(left()?).map_err(broken)?;
        let count = match stream.read(&mut piece) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(late());
            }
            Err(error) => return Err(broken(error)),
        };
        let read = piece.get(..count).unwrap_or_default();
        if read.is_empty() {
            let found = "the agent ended the connection before the end of its answer";
            return Err(Trouble::malformed(found, SEE_AGENT));
        }
        let end = read.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(end.map_or(read, |end| read.get(..=end).unwrap_or(read)));
        if line.len() > MAX_LINE {
            return Err(Trouble::malformed(
                format!("a line of more than {MAX_LINE} bytes"),
                SEE_AGENT,
            ));
        }
        if end.is_some() {
            return Ok(line);
        }
    }
}
