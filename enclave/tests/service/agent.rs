//! The client of the quote agent protocol, against agents that do and do not keep to it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use enclave::quote::{AgentSource, QuoteError, QuoteSettings, QuoteSource, Quoter, check};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixListener,
    sync::mpsc,
    task::JoinHandle,
};
use touchstone_formats::quote_agent::{Answer, ErrorKind, Request};

use super::source::report;

/// What an agent does with one request.
#[derive(Clone)]
enum Act {
    Quote,
    Say(Vec<u8>),
    /// Answers after this long.
    Late(u64),
    /// The quote of the request before.
    Stale,
    Close,
}

struct Agent {
    path: PathBuf,
    _folder: tempfile::TempDir,
    acts: mpsc::UnboundedSender<Act>,
    task: JoinHandle<()>,
}

/// An agent that does one act after the other, over however many connections.
fn agent() -> Agent {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (acts, given) = mpsc::unbounded_channel();
    let given = Arc::new(tokio::sync::Mutex::new(given));
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(connection(stream, Acts::Given(given.clone())));
        }
    });
    Agent {
        path,
        _folder: folder,
        acts,
        task,
    }
}

/// An agent at `path` that gives a quote whenever it is asked, for as long as the test runs.
pub fn serve_quotes(path: &std::path::Path) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(connection(stream, Acts::QuoteAlways));
        }
    });
}

/// Where a connection's acts come from.
enum Acts {
    QuoteAlways,
    Given(Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Act>>>),
}

impl Acts {
    async fn next(&self) -> Act {
        match self {
            Self::QuoteAlways => Act::Quote,
            Self::Given(given) => given.lock().await.recv().await.unwrap(),
        }
    }
}

async fn connection(stream: tokio::net::UnixStream, acts: Acts) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut before = [0; 64];
    while let Ok(Some(line)) = lines.next_line().await {
        let request = Request::parse(line.as_bytes()).unwrap();
        let data = request.report_data.0;
        let quote = |data| {
            let quote = report(data);
            Answer::Quote {
                tee: quote.tee,
                quote: quote.quote,
                event_log: None,
            }
            .to_line()
        };
        let act = acts.next().await;
        let line = match act {
            Act::Quote => quote(data),
            Act::Say(line) => line,
            Act::Late(milliseconds) => {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                quote(data)
            }
            Act::Stale => quote(before),
            Act::Close => return,
        };
        before = data;
        if write.write_all(&line).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn answers_and_their_faults() {
    let agent = agent();
    let source = AgentSource::new(&agent.path);
    let error = |error, message: &str| {
        Answer::Error {
            error,
            message: message.into(),
        }
        .to_line()
    };
    let good = |data| {
        let quote = report(data);
        Answer::Quote {
            tee: quote.tee,
            quote: quote.quote,
            event_log: None,
        }
        .to_line()
    };
    let acts = [
        (Act::Quote, None),
        (Act::Say(error(ErrorKind::Busy, "")), Some("busy")),
        (
            Act::Say(error(ErrorKind::Failed, "no device")),
            Some("no device"),
        ),
        (Act::Quote, None),
        (Act::Say(b"nonsense\n".to_vec()), Some("malformed")),
        (Act::Say(b"{}\n".to_vec()), Some("malformed")),
        (Act::Quote, None),
        (Act::Say(vec![b' '; (4 << 20) + 10]), Some("4 MiB")),
        (Act::Quote, None),
        (Act::Close, Some("closed")),
        (Act::Quote, None),
    ];
    for (at, (act, expected)) in acts.into_iter().enumerate() {
        let mut data = [7; 64];
        data[0] = at as u8;
        if matches!(act, Act::Close) {
            // A kept connection that ends is tried once more on a new one.
            agent.acts.send(Act::Close).unwrap();
        }
        agent.acts.send(act).unwrap();
        match (source.quote(data).await, expected) {
            (Ok(quote), None) => assert_eq!(check(quote, &data), Ok(report(data)), "act {at}"),
            (Err(error), Some(word)) => {
                assert!(
                    error
                        .to_string()
                        .to_lowercase()
                        .contains(&word.to_lowercase()),
                    "act {at}: {error}"
                );
            }
            (found, expected) => panic!("act {at}: {found:?}, expected {expected:?}"),
        }
    }
    // A quote that breaks off.
    let mut broken = good([1; 64]);
    broken.truncate(100);
    broken.push(b'\n');
    agent.acts.send(Act::Say(broken)).unwrap();
    assert!(matches!(
        source.quote([1; 64]).await,
        Err(QuoteError::Malformed(_))
    ));
    // A quote for something else is one that the comparison finds.
    agent.acts.send(Act::Quote).unwrap();
    agent.acts.send(Act::Stale).unwrap();
    source.quote([2; 64]).await.unwrap();
    let stale = source.quote([3; 64]).await.unwrap();
    assert_eq!(check(stale, &[3; 64]), Err(QuoteError::WrongReportData));
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_not_the_next_ones() {
    let agent = agent();
    let settings = QuoteSettings {
        timeout: Duration::from_millis(1_000),
        retries: 0,
        queue: 1,
        sessions: 1,
    };
    let quoter = Quoter::start(Arc::new(AgentSource::new(&agent.path)), settings);
    agent.acts.send(Act::Quote).unwrap();
    quoter.seal([1; 64]).await;
    // Late, on the connection that is kept; then in time, on a new one.
    agent.acts.send(Act::Late(1_500)).unwrap();
    agent.acts.send(Act::Quote).unwrap();
    agent.acts.send(Act::Quote).unwrap();
    assert_eq!(quoter.seal([2; 64]).await, report([2; 64]));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(quoter.seal([3; 64]).await, report([3; 64]));
    assert_eq!(
        quoter
            .counters()
            .wrong_report_data
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
    assert_eq!(
        quoter
            .counters()
            .failed
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}

#[tokio::test]
async fn no_agent_and_then_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let settings = QuoteSettings {
        timeout: Duration::from_millis(100),
        retries: 1,
        queue: 1,
        sessions: 1,
    };
    let quoter = Arc::new(Quoter::start(Arc::new(AgentSource::new(&path)), settings));
    let asking = tokio::spawn({
        let quoter = quoter.clone();
        async move { quoter.seal([9; 64]).await }
    });
    quoter.wait_failing(true).await;
    assert!(!asking.is_finished());
    let listener = UnixListener::bind(&path).unwrap();
    let (acts, given) = mpsc::unbounded_channel();
    acts.send(Act::Quote).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        connection(
            stream,
            Acts::Given(Arc::new(tokio::sync::Mutex::new(given))),
        )
        .await;
    });
    assert_eq!(asking.await.unwrap(), report([9; 64]));
    assert!(!quoter.failing());
}

#[tokio::test]
async fn an_agent_that_was_restarted_is_no_failure() {
    let mut agent = agent();
    let source = AgentSource::new(&agent.path);
    agent.acts.send(Act::Quote).unwrap();
    source.quote([1; 64]).await.unwrap();
    // The old process goes with its connections; a new one binds the same path.
    agent.acts.send(Act::Close).unwrap();
    agent.acts.send(Act::Quote).unwrap();
    assert_eq!(source.quote([2; 64]).await, Ok(report([2; 64])));
    agent.task.abort();
    agent.task = tokio::spawn(async {});
}
