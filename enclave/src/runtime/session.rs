//! Sessions: creating them out of memory, and what they say about the model.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use ort::{
    ep::CPU,
    logging::LogLevel,
    session::{Session, builder::GraphOptimizationLevel, builder::SessionBuilder},
    value::{Outlet, TensorElementType, ValueType},
};
use touchstone_formats::commitment::Datatype;

use super::Runtime;
use crate::{
    models::settings::{Execution, Optimization, Settings},
    protocol::TensorSpec,
};

/// Creates a session for a model in memory. `external` holds, by location, the files that the main
/// graph's initializers refer to; the runtime copies what it needs out of them.
///
/// # Errors
/// In the runtime's words, cut at 500 characters.
pub(crate) fn create(
    runtime: &Runtime,
    settings: &Settings,
    onnx: &[u8],
    external: &BTreeMap<String, Arc<[u8]>>,
) -> Result<Session, String> {
    let created = catch_unwind(AssertUnwindSafe(|| -> Result<Session, String> {
        let mut builder = builder(runtime, settings).map_err(|e| e.to_string())?;
        for (location, bytes) in external {
            builder = builder
                .with_external_initializer_file_in_memory(location, bytes.clone())
                .map_err(|e| e.to_string())?;
        }
        builder.commit_from_memory(onnx).map_err(|e| e.to_string())
    }));
    created
        .unwrap_or_else(|_| Err("the ort crate cannot handle this model".into()))
        .map_err(|reason| super::cut(&reason))
}

fn builder(runtime: &Runtime, settings: &Settings) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(runtime.environment())?
        .with_execution_providers([CPU::default().with_arena_allocator(settings.arena).build()])?
        .with_optimization_level(match settings.optimization {
            Optimization::None => GraphOptimizationLevel::Disable,
            Optimization::Basic => GraphOptimizationLevel::Level1,
            Optimization::Extended => GraphOptimizationLevel::Level2,
            Optimization::All => GraphOptimizationLevel::All,
        })?
        .with_parallel_execution(settings.execution == Execution::Parallel)?
        .with_intra_threads(settings.intra_threads)?
        .with_inter_threads(settings.inter_threads)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_memory_pattern(settings.memory_pattern)?
        .with_deterministic_compute(true)?
        // Only what `models::onnx` has looked through.
        .with_config_entry("session.load_model_format", "ONNX")?
        // External data is copied out of our memory, which is freed afterwards.
        .with_config_entry(
            "session.use_external_initializer_file_buffers_directly",
            "0",
        )?
        // The runtime's messages quote values of requests; they go to the caller, into no log.
        .with_log_level(LogLevel::Fatal)?;
    Ok(builder)
}

/// An input or output that the protocol cannot carry.
pub(crate) struct Unsupported {
    /// `input` or `output`.
    pub side: &'static str,
    /// Its name.
    pub name: String,
    /// Its type, in ort's words.
    pub found: String,
}

/// The inputs and the outputs that a session declares.
pub(crate) fn interface(
    session: &Session,
) -> Result<(Vec<TensorSpec>, Vec<TensorSpec>), Unsupported> {
    let specs = |side, outlets: &[Outlet]| {
        outlets
            .iter()
            .map(|outlet| spec(side, outlet))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok((
        specs("input", session.inputs())?,
        specs("output", session.outputs())?,
    ))
}

fn spec(side: &'static str, outlet: &Outlet) -> Result<TensorSpec, Unsupported> {
    let unsupported = || Unsupported {
        side,
        name: outlet.name().to_owned(),
        found: outlet.dtype().to_string(),
    };
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => Ok(TensorSpec {
            name: outlet.name().to_owned(),
            datatype: datatype(*ty).ok_or_else(unsupported)?,
            shape: shape.iter().copied().collect(),
        }),
        _ => Err(unsupported()),
    }
}

/// The protocol's name for an element type, if it has one.
pub(super) fn datatype(element: TensorElementType) -> Option<Datatype> {
    Some(match element {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        TensorElementType::Float16 => Datatype::Fp16,
        TensorElementType::Bfloat16 => Datatype::Bf16,
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::String => Datatype::Bytes,
        _ => return None,
    })
}
