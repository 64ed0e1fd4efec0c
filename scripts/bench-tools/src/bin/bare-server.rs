//! The ceiling: hyper and ort, the Open Inference Protocol's `infer`, and nothing that proves anything.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use bench_tools::{
    flat::Flat,
    model::{self, Elements, Model, Tensor},
};
use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::Semaphore};

const HEADER_LENGTH: &str = "inference-header-content-length";
/// Longer inferences go to the blocking pool, as in the enclave.
const INLINE: Duration = Duration::from_micros(300);

/// A bare Open Inference Protocol server, for benchmarks.
#[derive(Parser)]
struct Arguments {
    /// Address to listen on
    #[arg(long)]
    listen: SocketAddr,
    /// ONNX Runtime's shared library
    #[arg(long)]
    library: PathBuf,
    /// A model to serve, NAME=FILE
    #[arg(long = "model", required = true)]
    models: Vec<String>,
    /// Threads that serve, and sessions of each model
    #[arg(long)]
    threads: usize,
}

struct Served {
    model: Arc<Model>,
    slow: Option<Arc<Semaphore>>,
}

#[derive(Deserialize)]
struct Question<'a> {
    id: Option<String>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    parameters: Option<Parameters>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: &'a str,
    shape: Vec<i64>,
    datatype: &'a str,
    data: Option<Flat>,
    parameters: Option<Parameters>,
}

#[derive(Deserialize)]
struct Parameters {
    binary_data_size: Option<usize>,
    #[serde(default)]
    binary_data_output: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Size>,
    #[serde(flatten)]
    data: Option<Data<'a>>,
}

#[derive(Serialize)]
struct Size {
    binary_data_size: usize,
}

#[derive(Serialize)]
enum Data<'a> {
    #[serde(rename = "data")]
    F32(&'a [f32]),
    #[serde(rename = "data")]
    I64(&'a [i64]),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let environment = model::init(&arguments.library)?;
    let mut models = HashMap::new();
    for pair in &arguments.models {
        let (name, file) = pair.split_once('=').context("--model NAME=FILE")?;
        let model = Arc::new(Model::load(
            &environment,
            name,
            file.as_ref(),
            arguments.threads,
        )?);
        let slow = (model.typical()? > INLINE).then(|| Arc::new(Semaphore::new(arguments.threads)));
        models.insert(name.to_owned(), Served { model, slow });
    }
    let models = Arc::new(models);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(arguments.listen).await?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let models = Arc::clone(&models);
            tokio::spawn(async move {
                let service = service_fn(move |request| serve(Arc::clone(&models), request));
                // A connection that ends early is the load generator's business.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

async fn serve(
    models: Arc<HashMap<String, Served>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    Ok(match route(&models, request).await {
        Ok(response) => response,
        Err(error) => {
            let body = serde_json::json!({ "error": error.to_string() }).to_string();
            let mut response = Response::new(Full::from(body));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
    })
}

async fn route(
    models: &HashMap<String, Served>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>> {
    let path = request.uri().path();
    if request.method() == Method::GET && path == "/v2/health/ready" {
        return Ok(Response::new(Full::default()));
    }
    let name = path
        .strip_prefix("/v2/models/")
        .and_then(|rest| rest.strip_suffix("/infer"))
        .context("no such path")?;
    let served = models.get(name).context("no such model")?;
    let header_length = match request.headers().get(HEADER_LENGTH) {
        Some(value) => Some(value.to_str()?.parse::<usize>()?),
        None => None,
    };
    let body = Limited::new(request.into_body(), 16 << 20);
    let body = body
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?
        .to_bytes();
    let model = Arc::clone(&served.model);
    match &served.slow {
        None => infer(&model, &body, header_length),
        Some(slots) => {
            let slot = Arc::clone(slots).acquire_owned().await?;
            tokio::task::spawn_blocking(move || {
                let _slot = slot;
                infer(&model, &body, header_length)
            })
            .await?
        }
    }
}

fn infer(
    model: &Model,
    body: &[u8],
    header_length: Option<usize>,
) -> Result<Response<Full<Bytes>>> {
    let (header, mut binary) = body
        .split_at_checked(header_length.unwrap_or(body.len()))
        .context("header length")?;
    let question: Question<'_> = serde_json::from_slice(header)?;
    let mut inputs = Vec::with_capacity(question.inputs.len());
    for input in question.inputs {
        let elements = match (
            input.data,
            input.parameters.and_then(|p| p.binary_data_size),
        ) {
            (Some(numbers), None) => Elements::from_numbers(input.datatype, &numbers.0)?,
            (None, Some(size)) => {
                let (data, rest) = binary
                    .split_at_checked(size)
                    .context("binary data is short")?;
                binary = rest;
                Elements::from_bytes(input.datatype, data)?
            }
            _ => anyhow::bail!(
                "input {}: neither data nor binary data, or both",
                input.name
            ),
        };
        inputs.push(Tensor {
            name: input.name.to_owned(),
            shape: input.shape,
            elements,
        });
    }
    ensure!(binary.is_empty(), "binary data is left over");
    let outputs = model.run(&inputs)?;
    let as_binary = question.parameters.is_some_and(|p| p.binary_data_output);
    let mut tail = Vec::new();
    let described = outputs
        .iter()
        .map(|tensor| {
            let (mut data, mut parameters) = (None, None);
            if as_binary {
                let before = tail.len();
                tensor.elements.write_bytes(&mut tail);
                parameters = Some(Size {
                    binary_data_size: tail.len() - before,
                });
            } else {
                data = Some(match &tensor.elements {
                    Elements::F32(values) => Data::F32(values),
                    Elements::I64(values) => Data::I64(values),
                });
            }
            Output {
                name: &tensor.name,
                datatype: tensor.elements.datatype(),
                shape: &tensor.shape,
                parameters,
                data,
            }
        })
        .collect();
    let mut out = serde_json::to_vec(&Answer {
        model_name: &model.name,
        id: question.id,
        outputs: described,
    })?;
    let mut response = Response::builder().header("content-type", "application/json");
    if as_binary {
        response = Response::builder()
            .header("content-type", "application/octet-stream")
            .header(HEADER_LENGTH, out.len());
        out.append(&mut tail);
    }
    Ok(response.body(Full::from(out))?)
}
