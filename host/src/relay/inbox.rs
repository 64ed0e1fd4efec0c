//! What has come in from a caller and was not taken yet, followed by `strict`.

use std::{
    io,
    task::{Context, Poll},
};

use tokio::io::AsyncRead;

use super::{
    buffers,
    strict::{Found, Framing, Head, Strict, Violation},
};

/// Requests that may have come in ahead of their turn. A few more may come before their answers; a thousand in one small
/// packet would be a thousand times the work for next to nothing.
const AHEAD: u32 = 16;

/// Bytes of a caller. What is taken of them has one reading.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// So many of them were looked at.
    followed: usize,
    strict: Strict,
    /// Messages whose heads were found, and that have ended.
    begun: u64,
    ended: u64,
    /// Requests that were taken since something last came in.
    taken: u32,
}

/// A part of a body on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Bytes, at the beginning of what is there.
    pub(super) bytes: usize,
    /// Those of them that are no framing.
    pub(super) data: u64,
    /// The body ends with them.
    pub(super) ended: bool,
}

impl Inbox {
    /// Of a connection on which nothing has come in, for requests with at most so many fields.
    pub(super) fn new(fields: usize) -> Self {
        Self {
            bytes: Vec::new(),
            followed: 0,
            strict: Strict::requests(fields),
            begun: 0,
            ended: 0,
            taken: 0,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads more. 0: there is no more.
    pub(super) fn poll_more<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let read = buffers::poll_read(stream, &mut self.bytes, cx);
        if let Poll::Ready(Ok(1..)) = read {
            self.taken = 0;
        }
        read
    }

    /// As much. The caller bounds the time.
    pub(super) async fn more<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_more(stream, cx)).await
    }

    /// Ready when the caller has gone away; that cannot be seen behind a request that came ahead of its turn.
    pub(super) fn poll_gone<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.bytes.is_empty() {
            match self.poll_more(stream, cx) {
                Poll::Ready(Ok(1..)) | Poll::Pending => {}
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// The head that everything begins with: how long it is, and what it says. `None`: more has to come in.
    ///
    /// # Errors
    /// It has two readings, or came too far ahead of its turn.
    pub(super) fn head(&mut self) -> Result<Option<(usize, Head)>, Violation> {
        loop {
            let rest = self.bytes.get(self.followed..).unwrap_or_default();
            let (count, found) = self.strict.next(rest);
            self.followed = self.followed.saturating_add(count);
            match found {
                Found::Head(_) if self.taken >= AHEAD => return Err(Violation::Pipeline),
                Found::Head(head) => {
                    self.begun = self.begun.saturating_add(1);
                    if head.framing == Framing::None {
                        self.ended = self.begun;
                    }
                    self.taken = self.taken.saturating_add(1);
                    return Ok(Some((self.followed, head)));
                }
                Found::Broken(violation) => return Err(violation),
                _ if self.followed == self.bytes.len() => return Ok(None),
                _ => {}
            }
        }
    }

    /// Looks at the rest of a body as far as it has come in. `bytes` counts from the beginning of what is there.
    ///
    /// # Errors
    /// It has two readings.
    pub(super) fn body(&mut self) -> Result<Piece, Violation> {
        let mut data = 0;
        loop {
            let rest = self.bytes.get(self.followed..).unwrap_or_default();
            let is_all = rest.is_empty();
            let (count, found) = self.strict.next(rest);
            self.followed = self.followed.saturating_add(count);
            let ended = match found {
                Found::Broken(violation) => return Err(violation),
                Found::Data => {
                    data += count as u64;
                    continue;
                }
                Found::End => {
                    self.ended = self.begun;
                    true
                }
                _ if is_all || self.followed == self.bytes.len() => false,
                _ => continue,
            };
            return Ok(Piece {
                bytes: self.followed,
                data,
                ended,
            });
        }
    }

    /// Takes so many bytes, which were looked at.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        self.followed = self.followed.saturating_sub(count);
        if count >= self.bytes.len() {
            return std::mem::take(&mut self.bytes);
        }
        // Something came ahead of its turn.
        let rest = self.bytes.split_off(count);
        std::mem::replace(&mut self.bytes, rest)
    }

    /// Lets go of so many bytes, which were looked at.
    pub(super) fn consume(&mut self, count: usize) {
        self.followed = self.followed.saturating_sub(count);
        self.bytes.drain(..count.min(self.bytes.len()));
    }

    /// Lets go of a request whose head was found last, and says whether it has come in to its end: only then can another follow.
    pub(super) fn skip(&mut self) -> bool {
        if self.ended < self.begun && !self.body().is_ok_and(|piece| piece.ended) {
            return false;
        }
        self.consume(self.followed);
        true
    }

    /// Makes room for a good part of a long body.
    pub(super) fn enlarge(&mut self) {
        buffers::enlarge(&mut self.bytes);
    }

    /// Makes room for this many bytes in all.
    pub(super) fn make_room(&mut self, bytes: usize) {
        self.bytes.reserve(bytes.saturating_sub(self.bytes.len()));
    }

    /// How many bytes fit before more room is taken.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() == self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    async fn with(bytes: &[u8]) -> Inbox {
        let mut inbox = Inbox::new(100);
        let mut bytes = bytes;
        while inbox.more(&mut bytes).await.unwrap() > 0 {}
        inbox
    }

    #[tokio::test]
    async fn a_few_requests_come_ahead_of_their_turn() {
        let mut inbox = with(&ONE.repeat(100)).await;
        for _ in 0..AHEAD {
            let (length, _) = inbox.head().unwrap().unwrap();
            assert_eq!(inbox.take(length), ONE);
        }
        assert_eq!(inbox.head(), Err(Violation::Pipeline));
        // In their turn they come for ever.
        let mut inbox = Inbox::new(100);
        for _ in 0..100 {
            inbox.more(&mut &ONE[..]).await.unwrap();
            let (length, _) = inbox.head().unwrap().unwrap();
            assert_eq!(inbox.take(length), ONE);
            assert_eq!(inbox.head(), Ok(None));
        }
    }

    #[tokio::test]
    async fn parts_of_messages_end_where_they_end() {
        let head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = b"3\r\nabc\r\n2\r\nde\r\n0\r\nX: 1\r\n\r\n";
        let all = [&head[..], body, ONE].concat();
        for cut in 0..all.len() {
            let mut inbox = with(&all[..cut]).await;
            let mut rest = &all[cut..];
            let length = loop {
                match inbox.head().unwrap() {
                    Some((length, _)) => break length,
                    None => assert!(inbox.more(&mut rest).await.unwrap() > 0),
                };
            };
            assert_eq!(inbox.take(length), head);
            let (mut came, mut data) = (Vec::new(), 0);
            loop {
                let piece = inbox.body().unwrap();
                data += piece.data;
                came.extend_from_slice(&inbox.bytes()[..piece.bytes]);
                inbox.consume(piece.bytes);
                if piece.ended {
                    break;
                }
                assert!(inbox.more(&mut rest).await.unwrap() > 0);
            }
            assert_eq!((came, data), (body.to_vec(), 5));
            while !rest.is_empty() {
                inbox.more(&mut rest).await.unwrap();
            }
            let (length, _) = inbox.head().unwrap().unwrap();
            assert_eq!(inbox.take(length), ONE);
        }
    }
}
