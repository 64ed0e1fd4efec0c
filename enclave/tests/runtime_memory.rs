//! Hostile request bodies cost no memory: what parsing allocates stays in proportion to the body.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use enclave::protocol::{Limits, parse_request};

/// Counts the bytes that are allocated, and the most there ever were.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only sizes are added up.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was allocated at one time while `body` was parsed, and whether it was accepted.
fn cost(body: &Bytes, header_length: Option<u64>) -> (usize, bool) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let accepted = parse_request(body, header_length, &Limits::default()).is_ok();
    (MOST.load(Relaxed) - before, accepted)
}

/// One test only: the counters are the process's.
#[test]
fn memory_stays_in_proportion_to_the_body() {
    let megabyte = 1 << 20;
    let input = |shape: &str, datatype: &str, data: &str| {
        Bytes::from(format!(
            r#"{{"inputs":[{{"name":"X","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#
        ))
    };

    // What is refused at once.
    for (what, body) in [
        ("a huge shape", input("[1125899906842624]", "FP64", "[1]")),
        (
            "a shape that would just be allowed",
            input("[8388608]", "FP64", "[1]"),
        ),
        (
            "a huge shape of strings",
            input("[1125899906842624]", "BYTES", "[\"\"]"),
        ),
        (
            "a shape beyond 64 bits",
            input("[4294967296,4294967296,4294967296]", "INT8", "[1]"),
        ),
        (
            "a rank beyond the limit",
            input(&format!("[{}1]", "1,".repeat(megabyte)), "INT8", "[1]"),
        ),
        ("a deep body", "[".repeat(16 * megabyte).into()),
        (
            "a deep member",
            format!("{{\"x\":{}", "[".repeat(16 * megabyte)).into(),
        ),
        (
            "too many members",
            format!("{{{}}}", "\"a\":1,".repeat(megabyte)).into(),
        ),
        (
            "too many inputs",
            format!("{{\"inputs\":[{}", "{},".repeat(megabyte)).into(),
        ),
        (
            "more data than the shape says",
            input("[1]", "FP64", &format!("[{}1]", "1,".repeat(megabyte))),
        ),
        (
            "a name without an end",
            format!("{{\"{}", "x".repeat(16 * megabyte)).into(),
        ),
    ] {
        let (bytes, accepted) = cost(&body, None);
        assert!(!accepted, "{what}");
        assert!(
            bytes < 8192,
            "{what}: {bytes} bytes for a body of {}",
            body.len()
        );
    }

    // What is read: the elements, and nothing beside them.
    let ones = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
    for (what, body, data) in [
        (
            "bytes",
            input("[1048576]", "UINT8", &ones(megabyte)),
            megabyte,
        ),
        (
            "doubles",
            input("[1048576]", "FP64", &ones(megabyte)),
            8 * megabyte,
        ),
        (
            "postponed doubles",
            {
                let data = ones(megabyte);
                let body = format!(
                    r#"{{"inputs":[{{"data":{data},"name":"X","shape":[1048576],"datatype":"FP64"}}]}}"#
                );
                body.into()
            },
            8 * megabyte,
        ),
    ] {
        let (bytes, accepted) = cost(&body, None);
        assert!(accepted, "{what}");
        assert!(
            bytes < data + 8192,
            "{what}: {bytes} bytes for {data} bytes of elements"
        );
    }
    // Strings grow as they come; the buffer doubles.
    let strings = input(
        "[1048576]",
        "BYTES",
        &format!("[{}\"\"]", "\"\",".repeat(megabyte - 1)),
    );
    let (bytes, accepted) = cost(&strings, None);
    assert!(accepted && bytes < 3 * 4 * megabyte, "{bytes}");
    // One string full of escapes is copied once on its way.
    let escapes = input(
        "[1]",
        "BYTES",
        &format!("[\"{}\"]", "\\n".repeat(4 * megabyte)),
    );
    let (bytes, accepted) = cost(&escapes, None);
    assert!(accepted && bytes < 16 * megabyte, "{bytes}");

    // Binary data is not copied at all.
    let header = r#"{"inputs":[{"name":"X","shape":[16777216],"datatype":"UINT8","parameters":{"binary_data_size":16777216}}]}"#;
    let body = Bytes::from([header.as_bytes(), &vec![7; 16 * megabyte]].concat());
    let (bytes, accepted) = cost(&body, Some(header.len() as u64));
    assert!(accepted && bytes < 8192, "{bytes}");
}
