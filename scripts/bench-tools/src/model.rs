//! A pool of ONNX Runtime sessions.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use ort::{
    environment::Environment,
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::{TensorElementType, TensorRef, ValueType},
};

/// Loads the runtime; once per process.
///
/// # Errors
/// When the library cannot be loaded.
pub fn init(library: &Path) -> Result<Environment> {
    let builder =
        ort::init_from(library).map_err(|error| anyhow!("{}: {error}", library.display()))?;
    builder
        .with_telemetry(false)
        .build()
        .map_err(|error| anyhow!("{error}"))
}

/// Elements of a tensor. The two types that the benchmarked models use.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// FP32
    F32(Vec<f32>),
    /// INT64
    I64(Vec<i64>),
}

impl Elements {
    /// Elements from the binary tensor extension: little-endian, row-major.
    ///
    /// # Errors
    /// A datatype that is not benchmarked, or bytes that do not fit it.
    pub fn from_bytes(datatype: &str, bytes: &[u8]) -> Result<Self> {
        let (fours, eights) = (bytes.as_chunks::<4>(), bytes.as_chunks::<8>());
        match datatype {
            "FP32" if fours.1.is_empty() => Ok(Self::F32(
                fours.0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            )),
            "INT64" if eights.1.is_empty() => Ok(Self::I64(
                eights.0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            )),
            _ => bail!("{} bytes of {datatype}", bytes.len()),
        }
    }

    /// Elements from JSON numbers.
    ///
    /// # Errors
    /// A datatype that is not benchmarked.
    pub fn from_numbers(datatype: &str, numbers: &[f64]) -> Result<Self> {
        match datatype {
            "FP32" => Ok(Self::F32(numbers.iter().map(|n| *n as f32).collect())),
            "INT64" => Ok(Self::I64(numbers.iter().map(|n| *n as i64).collect())),
            _ => bail!("datatype {datatype}"),
        }
    }

    /// The protocol's name of the datatype.
    pub fn datatype(&self) -> &'static str {
        match self {
            Self::F32(_) => "FP32",
            Self::I64(_) => "INT64",
        }
    }

    /// Appends the bytes of the binary tensor extension.
    pub fn write_bytes(&self, out: &mut Vec<u8>) {
        match self {
            Self::F32(values) => values
                .iter()
                .for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
            Self::I64(values) => values
                .iter()
                .for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
        }
    }
}

/// A named tensor.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Name of the model's input or output.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<i64>,
    /// Row-major elements.
    pub elements: Elements,
}

/// One model and its sessions, one intra-op thread each.
pub struct Model {
    /// Name in URLs.
    pub name: String,
    sessions: Vec<Mutex<Session>>,
    next: AtomicUsize,
}

impl Model {
    /// Makes `sessions` sessions of the model in `file`.
    ///
    /// # Errors
    /// When the file cannot be read or the runtime refuses it.
    pub fn load(
        environment: &Environment,
        name: &str,
        file: &Path,
        sessions: usize,
    ) -> Result<Self> {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        let session = || -> Result<Mutex<Session>, ort::Error> {
            let mut builder = Session::builder(environment)?
                .with_intra_threads(1)?
                .with_inter_threads(1)?
                .with_optimization_level(GraphOptimizationLevel::All)?;
            Ok(Mutex::new(builder.commit_from_memory(&bytes)?))
        };
        let sessions = (0..sessions)
            .map(|_| session())
            .collect::<Result<Vec<_>, _>>();
        let sessions = sessions.map_err(|error| anyhow!("{name}: {error}"))?;
        Ok(Self {
            name: name.to_owned(),
            sessions,
            next: AtomicUsize::new(0),
        })
    }

    /// Runs the model on a session that is free, or on the next in turn.
    ///
    /// # Errors
    /// What the runtime says, or an output of a type that is not benchmarked.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.sessions.len();
        for offset in 0..count {
            if let Ok(mut session) = self.sessions[(start + offset) % count].try_lock() {
                return run(&mut session, inputs);
            }
        }
        let mut session = self.sessions[start % count]
            .lock()
            .map_err(|_| anyhow!("a session panicked"))?;
        run(&mut session, inputs)
    }

    /// How long one inference of a minimal input takes, warm.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn typical(&self) -> Result<Duration> {
        let inputs = self.minimal_inputs()?;
        for _ in 0..3 {
            self.run(&inputs)?;
        }
        let started = Instant::now();
        self.run(&inputs)?;
        Ok(started.elapsed())
    }

    fn minimal_inputs(&self) -> Result<Vec<Tensor>> {
        let session = self.sessions[0]
            .lock()
            .map_err(|_| anyhow!("a session panicked"))?;
        let mut inputs = Vec::new();
        for outlet in session.inputs() {
            let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
                bail!("input {} is no tensor", outlet.name())
            };
            let shape: Vec<i64> = shape.iter().map(|dimension| (*dimension).max(1)).collect();
            let count = shape.iter().product::<i64>() as usize;
            let elements = match ty {
                TensorElementType::Float32 => Elements::F32(vec![0.5; count]),
                TensorElementType::Int64 => Elements::I64(vec![1; count]),
                other => bail!("input {} is {other:?}", outlet.name()),
            };
            inputs.push(Tensor {
                name: outlet.name().to_owned(),
                shape,
                elements,
            });
        }
        Ok(inputs)
    }
}

fn run(session: &mut Session, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let fail = |error: ort::Error| anyhow!("{error}");
    let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
    for input in inputs {
        let shape = input.shape.as_slice();
        let value = match &input.elements {
            Elements::F32(v) => TensorRef::from_array_view((shape, v.as_slice()))
                .map_err(fail)?
                .into(),
            Elements::I64(v) => TensorRef::from_array_view((shape, v.as_slice()))
                .map_err(fail)?
                .into(),
        };
        values.push((&input.name, value));
    }
    let outputs = session.run(values).map_err(fail)?;
    let mut tensors = Vec::with_capacity(outputs.len());
    for (name, value) in outputs.iter() {
        let (shape, elements) = if let Ok((shape, data)) = value.try_extract_tensor::<f32>() {
            (shape.to_vec(), Elements::F32(data.to_vec()))
        } else {
            let (shape, data) = value.try_extract_tensor::<i64>().map_err(fail)?;
            (shape.to_vec(), Elements::I64(data.to_vec()))
        };
        tensors.push(Tensor {
            name: name.to_owned(),
            shape,
            elements,
        });
    }
    Ok(tensors)
}
