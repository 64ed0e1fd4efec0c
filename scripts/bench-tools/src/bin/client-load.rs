//! The client library at work: new attested connections, first verified answers, and verified answers without end.

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use attestation_verifier::{Policy, Roots};
use bench_tools::{
    figures::{Latencies, joined},
    lines::Measured,
};
use bytes::Bytes;
use clap::{Parser, Subcommand};
use touchstone_client::{Builder, Client, Provisional, Question};

/// Proves, asks and verifies, and prints figures as JSON.
#[derive(Parser)]
struct Arguments {
    /// Server, https://HOST:PORT; in plain HTTP or sealed http://HOST:PORT
    #[arg(long)]
    server: String,
    /// How requests go there
    #[arg(long, value_enum, default_value_t = Way::Tls)]
    way: Way,
    /// The policy
    #[arg(long)]
    policy: PathBuf,
    /// The simulated platform's root, PEM
    #[arg(long)]
    root: PathBuf,
    /// Threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[command(subcommand)]
    command: Command,
}

/// How requests go.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Way {
    /// Attested TLS
    Tls,
    /// Plain HTTP, which the host reads
    Plain,
    /// Each sealed to the enclave's key
    Sealed,
}

#[derive(Subcommand)]
enum Command {
    /// Attested connections and nothing on them, one after the other on each of N lines
    Connect(Measured),
    /// From nothing to a verified answer, one after the other
    First {
        /// How often
        #[arg(long)]
        times: usize,
        #[command(flatten)]
        request: Request,
    },
    /// Answers as they come, unproven, from one client, on each of N lines
    Ask {
        #[command(flatten)]
        measured: Measured,
        #[command(flatten)]
        request: Request,
    },
    /// Verified answers, from one client, on each of N lines
    Steady {
        #[command(flatten)]
        measured: Measured,
        #[command(flatten)]
        request: Request,
    },
}

#[derive(clap::Args)]
struct Request {
    /// Request target
    #[arg(long)]
    path: String,
    /// File with the request's body
    #[arg(long)]
    body: PathBuf,
    /// Inference-Header-Content-Length: the body is in the binary extension
    #[arg(long)]
    header_length: Option<u64>,
}

/// What a request is made of, read once.
struct Asked {
    path: String,
    header_length: Option<u64>,
    body: Bytes,
}

impl Asked {
    fn read(request: Request) -> Result<Arc<Self>> {
        let body = std::fs::read(&request.body).context("the body")?;
        Ok(Arc::new(Self {
            path: request.path,
            header_length: request.header_length,
            body: body.into(),
        }))
    }

    async fn provisional(&self, client: &Client) -> Result<Provisional> {
        let question = Question::raw(self.path.clone(), self.header_length, self.body.clone())?;
        Ok(client.ask(question).await?)
    }

    /// Asks, waits for what the policy demands, and judges.
    async fn verified(&self, client: &Client) -> Result<()> {
        let verified = self.provisional(client).await?.verified().await;
        verified
            .map_err(|refused| anyhow::anyhow!("{}", refused.verdict.deciding().unwrap_or("?")))?;
        Ok(())
    }
}

/// How connections are made.
struct Server {
    url: String,
    way: Way,
    policy: Policy,
    roots: Roots,
}

impl Server {
    fn builder(&self) -> Result<Builder> {
        let builder = Client::builder(&self.url, self.policy.clone())?;
        let builder = builder.roots(self.roots.clone()).expect_simulated(true);
        Ok(match self.way {
            Way::Tls => builder,
            Way::Plain => builder.readable_by_the_host(),
            Way::Sealed => builder.sealed(),
        })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let server = Arc::new(Server {
        url: arguments.server,
        way: arguments.way,
        policy: Policy::parse(&std::fs::read_to_string(&arguments.policy).context("the policy")?)?,
        roots: Roots::pinned().with_simulated_pem(&std::fs::read(&arguments.root)?)?,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads)
        .enable_all()
        .build()?;
    let figures = runtime.block_on(async {
        match arguments.command {
            Command::Connect(measured) => {
                let connect = move || {
                    let server = Arc::clone(&server);
                    async move { Ok(server.builder()?.connect().await.map(drop)?) }
                };
                measured.run(connect).await
            }
            Command::First { times, request } => first(&server, times, request).await,
            Command::Ask { measured, request } => {
                let asked = Asked::read(request)?;
                let builder = server.builder()?.connections(measured.connections);
                let client = builder.connect().await?;
                let ask = move || {
                    let (client, asked) = (client.clone(), Arc::clone(&asked));
                    async move { asked.provisional(&client).await.map(drop) }
                };
                measured.run(ask).await
            }
            Command::Steady { measured, request } => {
                let asked = Asked::read(request)?;
                let builder = server.builder()?.connections(measured.connections);
                let client = builder.connect().await?;
                let ask = move || {
                    let (client, asked) = (client.clone(), Arc::clone(&asked));
                    async move { asked.verified(&client).await }
                };
                measured.run(ask).await
            }
        }
    })?;
    println!("{figures}");
    Ok(())
}

/// Connects, asks and verifies with a new client each time; says what each part took.
async fn first(server: &Server, times: usize, request: Request) -> Result<serde_json::Value> {
    let asked = Asked::read(request)?;
    let mut whole = Latencies::default();
    let mut connecting = Latencies::default();
    for _ in 0..times {
        let began = Instant::now();
        let client = server.builder()?.connect().await?;
        connecting.note(began.elapsed());
        asked.verified(&client).await?;
        whole.note(began.elapsed());
    }
    let part = serde_json::json!({ "times": times, "connecting": connecting.percentiles() });
    Ok(joined([whole.percentiles(), part]))
}
