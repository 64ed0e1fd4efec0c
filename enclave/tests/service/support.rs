//! A running service, and a client for it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use enclave::{
    config::{Address, Config},
    models::{LoadedModels, Repository, RepositoryConfig},
    net::Listener,
    run::{self, Listeners},
    runtime::Runtime,
    service::{Loader, Service},
};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
};
use touchstone_formats::{
    digest::Digest,
    headers::{OpeningSalts, TouchstoneResponse},
};

use super::{onnx, source::Source};

/// Settings for a test: the smallest file that stands, with these lines (whole `section.key = value`)
/// instead of the defaults.
pub fn config(changes: &[&str]) -> Config {
    let library = Digest::ZERO;
    let mut table: toml::Table = format!(
        r#"
        name = "enclave.test"
        log_prefix = "enclave.test/log"
        threads = 2
        listen.public = "tcp://127.0.0.1:0"
        listen.control = "tcp://127.0.0.1:0"
        quote.agent = "/nowhere"
        quote.timeout_ms = 5000
        runtime.library = "/nowhere"
        runtime.sha256 = "{library}"
        models.repository = "/nowhere"
        models.sessions = 2
        "#
    )
    .parse()
    .unwrap();
    for change in changes {
        let (path, value) = change.split_once('=').unwrap();
        let value: toml::Table = format!("value = {value}").parse().unwrap();
        let mut keys: Vec<&str> = path.trim().split('.').collect();
        let last = keys.pop().unwrap();
        let section = keys.iter().fold(&mut table, |table, key| {
            table
                .entry(*key)
                .or_insert_with(|| toml::Table::new().into())
                .as_table_mut()
                .unwrap()
        });
        section.insert(last.into(), value["value"].clone());
    }
    Config::parse(&table.to_string()).unwrap()
}

/// The runtime's library, or a word on why a test is skipped.
pub fn library(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("TOUCHSTONE_ONNXRUNTIME")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/onnxruntime/libonnxruntime.so")
        });
    if !path.is_file() {
        eprintln!(
            "SKIPPED: {test}: no ONNX Runtime library at {}",
            path.display()
        );
        return None;
    }
    Some(path.canonicalize().unwrap())
}

/// The runtime, or a word on why a test is skipped.
pub fn runtime(test: &str) -> Option<Arc<Runtime>> {
    let path = library(test)?;
    let digest = Digest::of(&std::fs::read(&path).unwrap());
    Some(Runtime::load(&path, digest).unwrap())
}

/// A repository folder with the models of these tests.
pub struct Models {
    pub folder: tempfile::TempDir,
    pub repository: Arc<Repository>,
}

impl Models {
    pub fn new(test: &str) -> Option<Self> {
        let runtime = runtime(test)?;
        let folder = tempfile::tempdir().unwrap();
        let settings = RepositoryConfig {
            root: folder.path().to_owned(),
            sessions: 2,
            acquire_timeout: Duration::from_secs(10),
            waiting: 4_096,
        };
        let repository = Arc::new(Repository::new(runtime, settings));
        let models = Self { folder, repository };
        models.write("reciprocal", "1", &onnx::reciprocal());
        models.write("three", "1", &onnx::three());
        models.write("power", "1", &onnx::power(60));
        Some(models)
    }

    pub fn write(&self, name: &str, version: &str, model: &[u8]) {
        let folder = self.folder.path().join(name).join(version);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("model.onnx"), model).unwrap();
    }

    pub fn loader(&self) -> Loader {
        let repository = self.repository.clone();
        Box::new(move |previous| repository.load(previous))
    }
}

/// A loader that has nothing to load: for tests that need no answers.
pub fn no_models() -> Loader {
    Box::new(|_| Ok(LoadedModels::default()))
}

/// A service on its sockets. Ends with the test's runtime.
pub struct Running {
    pub service: Arc<Service>,
    pub source: Arc<Source>,
    pub public: SocketAddr,
    pub control: SocketAddr,
    pub tls: Option<SocketAddr>,
    /// Ends the listeners when it turns true, or is dropped.
    pub stop: watch::Sender<bool>,
}

impl Running {
    /// On its sockets, not booted.
    pub async fn unbooted(changes: &[&str], source: Source, loader: Loader) -> Self {
        let source = Arc::new(source);
        let service = Service::new(config(changes), &[], source.clone(), loader).unwrap();
        let listeners = Listeners::bind(&service.config.listen).await.unwrap();
        let address = |listener: &Listener| match listener.address().unwrap() {
            Address::Tcp(address) => address,
            other => panic!("{other}"),
        };
        let (stop, stopped) = watch::channel(false);
        let (at_public, at_control) = (address(&listeners.public), address(&listeners.control));
        let at_tls = listeners.tls.as_ref().map(address);
        tokio::spawn(run::listen(service.clone(), listeners, stopped));
        Self {
            service,
            source,
            public: at_public,
            control: at_control,
            tls: at_tls,
            stop,
        }
    }

    pub async fn start(changes: &[&str], source: Source, loader: Loader) -> Self {
        let running = Self::unbooted(changes, source, loader).await;
        running.service.boot().await.unwrap();
        running
    }

    /// With the models of these tests and quotes that take this long.
    pub async fn with_models(
        test: &str,
        changes: &[&str],
        milliseconds: u64,
    ) -> Option<(Self, Models)> {
        let models = Models::new(test)?;
        let source = Source::new(Duration::from_millis(milliseconds));
        let running = Self::start(changes, source, models.loader()).await;
        Some((running, models))
    }

    /// Where TLS ends.
    pub fn tls(&self) -> SocketAddr {
        self.tls.expect("no TLS listener")
    }

    pub async fn client(&self) -> Client {
        Client::new(self.public).await
    }

    /// One request on a connection of its own.
    pub async fn get(&self, path: &str) -> Reply {
        self.client().await.get(path).await
    }

    /// One request on the control listener.
    pub async fn control_get(&self, path: &str) -> Reply {
        Client::new(self.control).await.get(path).await
    }

    pub async fn control_post(&self, path: &str, body: &str) -> Reply {
        Client::new(self.control)
            .await
            .send(Method::POST, path, &[], body.to_owned())
            .await
    }
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
            .to_str()
            .unwrap()
    }

    pub fn touchstone(&self) -> TouchstoneResponse {
        TouchstoneResponse::parse(self.header("touchstone")).unwrap()
    }

    pub fn openings(&self) -> OpeningSalts {
        OpeningSalts::parse(self.header("touchstone-openings")).unwrap()
    }

    /// The problem's detail; checks that the document is whole.
    pub fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        assert_eq!(problem["error"], problem["detail"], "{problem}");
        assert!(
            problem["title"].is_string() && problem["type"] == "about:blank",
            "{problem}"
        );
        problem["detail"].as_str().unwrap().to_owned()
    }
}

/// One connection.
pub struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Client {
    pub async fn new(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    /// On a stream that is connected already.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    /// Waits until the other side has closed the connection; panics after twenty seconds.
    pub async fn closed(&mut self) {
        let closed = async {
            while !self.sender.is_closed() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let closed = tokio::time::timeout(Duration::from_secs(20), closed).await;
        closed.expect("the connection is not closed");
    }

    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let reply = self.try_send(method, path, headers, body).await;
        reply.unwrap()
    }

    /// The error is a connection that ended before the answer did.
    async fn try_send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> hyper::Result<Reply> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        Ok(Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    pub async fn get(&mut self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Asks the reciprocal of 1, 2, 4, 8.
    pub async fn infer(&mut self, headers: &[(&str, &str)]) -> Reply {
        self.try_infer(headers).await.unwrap()
    }

    /// As much, of somebody who may find no place.
    pub async fn try_infer(&mut self, headers: &[(&str, &str)]) -> hyper::Result<Reply> {
        let body = body([1.0, 2.0, 4.0, 8.0]);
        self.try_send(Method::POST, INFER, headers, body).await
    }
}

/// Where the reciprocal is asked.
pub const INFER: &str = "/v2/models/reciprocal/infer";

/// A JSON request for it.
pub fn body(values: [f32; 4]) -> String {
    format!(r#"{{"inputs":[{{"name":"X","datatype":"FP32","shape":[1,4],"data":{values:?}}}]}}"#)
}

/// Waits until something holds; panics after twenty seconds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 20 s: {what}");
}
