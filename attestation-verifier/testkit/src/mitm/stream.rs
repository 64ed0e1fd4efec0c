//! Lies about bytes that cannot be read: whole TLS records altered, dropped, doubled, held back, crossed between two
//! clients, cut off.
//!
//! Who cannot decrypt still sees whose turn it is. In TLS 1.3 the server speaks for the first time to finish the
//! handshake, for the second time to answer the request for a session, for the third time to answer the first request on
//! the proven connection. A turn begins with the first encrypted record that the server sends after
//! the client sent something.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use super::Lie;
use super::record::Recorder;

/// Outer type of every encrypted record.
const APPLICATION_DATA: u8 = 23;

/// Where two clients' answers meet.
#[derive(Debug)]
pub(super) struct Crossing<T>(Mutex<Option<(T, oneshot::Sender<T>)>>);

impl<T> Crossing<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Gives one and waits for another's. `None` when whoever came got tired of waiting.
    pub(super) async fn swap(&self, mine: T) -> Option<T> {
        let receiver = {
            let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting = place.take().filter(|(_, sender)| !sender.is_closed());
            if let Some((theirs, sender)) = waiting {
                return sender.send(mine).ok().map(|()| theirs);
            }
            let (sender, receiver) = oneshot::channel();
            *place = Some((mine, sender));
            receiver
        };
        receiver.await.ok()
    }
}

/// What is to be done, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Damage {
    pub(super) lie: Lie,
    /// In which turn of the server.
    pub(super) turn: u32,
    /// For how long an answer is held back.
    pub(super) delay: Duration,
}

/// Relays one connection to its end.
pub(super) async fn relay(
    client: impl AsyncRead + AsyncWrite,
    server: impl AsyncRead + AsyncWrite,
    damage: Damage,
    crossing: &Crossing<Vec<u8>>,
    recorder: &Recorder,
) -> io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let client_spoke = AtomicBool::new(false);
    let up = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let length = from_client.read(&mut buffer).await?;
            if length == 0 {
                return to_server.shutdown().await;
            }
            client_spoke.store(true, Ordering::SeqCst);
            to_server.write_all(&buffer[..length]).await?;
            to_server.flush().await?;
        }
    };
    let down = async {
        let (mut turn, mut last) = (0, Vec::new());
        while let Some(mut record) = record(&mut from_server).await? {
            let begins =
                record[0] == APPLICATION_DATA && client_spoke.swap(false, Ordering::SeqCst);
            turn += u32::from(begins);
            let before = std::mem::replace(&mut last, record.clone());
            if turn == damage.turn {
                match damage.lie {
                    Lie::Drop => {
                        recorder.lie("dropped a record");
                        continue;
                    }
                    Lie::Alter if begins => {
                        recorder.lie("altered one bit");
                        let middle = record.len() / 2;
                        record[middle] ^= 1;
                    }
                    Lie::Double if begins => {
                        recorder.lie("sent the record before once more");
                        to_client.write_all(&before).await?;
                    }
                    Lie::Delay if begins => {
                        recorder.lie("holds an answer back");
                        tokio::time::sleep(damage.delay).await;
                    }
                    Lie::Swap if begins => {
                        recorder.lie("waits for another client's answer");
                        match crossing.swap(record).await {
                            Some(theirs) => record = theirs,
                            None => return Ok(()),
                        }
                    }
                    Lie::Truncate => {
                        recorder.lie("ended the connection inside a record");
                        to_client.write_all(&record[..record.len() / 2]).await?;
                        return to_client.shutdown().await;
                    }
                    _ => {}
                }
            }
            to_client.write_all(&record).await?;
            to_client.flush().await?;
        }
        to_client.shutdown().await
    };
    // When one side ends, nothing is left to relay: TLS says goodbye in a record of its own.
    tokio::select! {
        done = up => done,
        done = down => done,
    }
}

/// The next TLS record with its header; `None` at the end of the stream.
pub(super) async fn record(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut record = vec![0; 5];
    match stream.read_exact(&mut record).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        done => done?,
    };
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    stream.read_exact(&mut record[5..]).await?;
    Ok(Some(record))
}
