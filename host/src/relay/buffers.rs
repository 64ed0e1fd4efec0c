//! Buffers for what comes in, of two sizes, used again by the thread that has them.
//!
//! Most connections wait most of the time, and have no buffer meanwhile: one is taken when there may be something to
//! read, and given back when there was nothing, or when what was read has gone on.

use std::{cell::RefCell, future::Future, io, pin::pin, task::Context, task::Poll};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a buffer: most messages are smaller.
const SIZE: usize = 16 << 10;
/// Bytes of one for bodies that are streamed. The system makes and clears so much memory anew each time that it is asked for.
const LARGE: usize = 256 << 10;
/// Unused ones that a thread keeps of each size.
const SPARE: usize = 64;
const SPARE_LARGE: usize = 8;

thread_local! {
    static UNUSED: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static UNUSED_LARGE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer.
fn take() -> Vec<u8> {
    let unused = UNUSED.with_borrow_mut(Vec::pop);
    unused.unwrap_or_else(|| Vec::with_capacity(SIZE))
}

/// Makes a buffer a large one, with what is in it.
pub(super) fn enlarge(buffer: &mut Vec<u8>) {
    if buffer.capacity() >= LARGE {
        return;
    }
    let unused = UNUSED_LARGE.with_borrow_mut(Vec::pop);
    let mut large = unused.unwrap_or_else(|| Vec::with_capacity(LARGE));
    large.extend_from_slice(buffer);
    give_back(std::mem::replace(buffer, large));
}

/// Takes back what is not needed any more. One that has grown is not kept.
pub(super) fn give_back(mut buffer: Vec<u8>) {
    let (unused, most) = match buffer.capacity() {
        SIZE => (&UNUSED, SPARE),
        LARGE => (&UNUSED_LARGE, SPARE_LARGE),
        _ => return,
    };
    buffer.clear();
    unused.with_borrow_mut(|unused| {
        if unused.len() < most {
            unused.push(buffer);
        }
    });
}

/// Reads what there is to the end of `buffer`, as much as it has room for, and some where it has none. Gives how many bytes;
/// 0: there will be no more.
pub(super) fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if buffer.capacity() == 0 {
        *buffer = take();
    } else if buffer.len() == buffer.capacity() {
        buffer.reserve(SIZE);
    }
    // Nothing is lost with a read that was not ready: it holds nothing.
    let read = pin!(stream.read_buf(buffer)).poll(cx);
    if buffer.is_empty() {
        give_back(std::mem::take(buffer));
    }
    read
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_buffer_is_there_while_there_is_something_in_it() {
        let (mut ours, mut theirs) = tokio::io::duplex(3 * SIZE);
        let mut buffer = Vec::new();
        let mut read = async |buffer: &mut Vec<u8>| {
            std::future::poll_fn(|cx| Poll::Ready(poll_read(&mut ours, buffer, cx))).await
        };
        assert!(read(&mut buffer).await.is_pending());
        assert_eq!(buffer.capacity(), 0);
        theirs.write_all(&[7; 2 * SIZE]).await.unwrap();
        // Filled, and then grown.
        for count in [SIZE, SIZE] {
            let Poll::Ready(Ok(found)) = read(&mut buffer).await else {
                panic!("there is something");
            };
            assert_eq!(found, count);
        }
        assert_eq!(buffer, [7; 2 * SIZE]);
        give_back(std::mem::take(&mut buffer));
        // The grown one is gone; the first of all was kept.
        let kept = UNUSED.with_borrow(|unused| unused.iter().map(Vec::capacity).sum::<usize>());
        assert_eq!(kept % SIZE, 0);
        drop(theirs);
        assert!(matches!(read(&mut buffer).await, Poll::Ready(Ok(0))));
        assert_eq!(buffer.capacity(), 0);
    }

    #[test]
    fn a_large_buffer_has_what_the_small_one_had_and_is_used_again() {
        let mut buffer = take();
        buffer.extend_from_slice(b"abc");
        enlarge(&mut buffer);
        assert_eq!((&buffer[..], buffer.capacity()), (&b"abc"[..], LARGE));
        let large = buffer.as_ptr();
        enlarge(&mut buffer);
        assert_eq!(buffer.as_ptr(), large);
        give_back(buffer);
        let mut again = Vec::new();
        enlarge(&mut again);
        assert_eq!((again.as_ptr(), again.len()), (large, 0));
        let kept = || UNUSED_LARGE.with_borrow(Vec::len);
        (0..2 * SPARE_LARGE).for_each(|_| give_back(Vec::with_capacity(LARGE)));
        assert_eq!(kept(), SPARE_LARGE);
    }
}
