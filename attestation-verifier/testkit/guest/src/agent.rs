//! A quote agent's socket as firmware: what is behind it, and its faults, show through the kernel's interfaces.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use touchstone_formats::quote_agent::{Answer, ErrorKind, MAX_LINE, Request};

use crate::{Firmware, Made};

/// Longest time for an answer: as long as Linux's driver waits for a throttled host.
const PATIENCE: Duration = Duration::from_secs(60);

/// A quote agent behind a Unix socket (docs/quote-agent.md).
#[derive(Clone, Debug)]
pub struct Agent {
    /// The socket.
    pub socket: PathBuf,
    /// The certificate table that comes with each SEV-SNP report.
    pub certificates: Vec<u8>,
}

impl Agent {
    fn ask(&self, report_data: [u8; 64]) -> std::io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&Request::new(report_data).to_line())?;
        let mut line = Vec::new();
        BufReader::new(stream)
            .take(MAX_LINE as u64)
            .read_until(b'\n', &mut line)?;
        Answer::parse(&line).map_err(std::io::Error::other)
    }
}

impl Firmware for Agent {
    fn report(&mut self, report_data: [u8; 64], _: u8) -> Result<Made, i32> {
        match self.ask(report_data) {
            Ok(Answer::Quote { tee, quote, .. }) => Ok(Made {
                tee,
                quote,
                certificates: self.certificates.clone(),
            }),
            Ok(Answer::Error {
                error: ErrorKind::Busy,
                ..
            }) => Err(libc::EBUSY),
            Ok(Answer::Error { .. }) => Err(libc::EIO),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(libc::ETIMEDOUT),
            Err(_) => Err(libc::EIO),
        }
    }
}
