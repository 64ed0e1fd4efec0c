//! ONNX Runtime alone, in one process, without a server: what inference itself costs.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use bench_tools::{
    cpu::process_cpu,
    model::{self, Elements, Model, Tensor},
};
use clap::Parser;

/// Runs a model over and over and prints how often it could, as JSON.
#[derive(Parser)]
struct Arguments {
    /// ONNX Runtime's shared library
    #[arg(long)]
    library: PathBuf,
    /// The model's file
    #[arg(long)]
    model: PathBuf,
    /// An input, NAME:DATATYPE:DIM,DIM…:FILE with the raw little-endian elements
    #[arg(long = "input", required = true)]
    inputs: Vec<String>,
    /// Threads, one session each
    #[arg(long)]
    threads: usize,
    /// Seconds to measure
    #[arg(long)]
    seconds: f64,
}

fn input(text: &str) -> Result<Tensor> {
    let mut parts = text.splitn(4, ':');
    let mut part = || parts.next().context("--input NAME:DATATYPE:SHAPE:FILE");
    let (name, datatype, shape, file) = (part()?, part()?, part()?, part()?);
    let shape = shape.split(',').map(str::parse).collect::<Result<_, _>>()?;
    Ok(Tensor {
        name: name.to_owned(),
        shape,
        elements: Elements::from_bytes(datatype, &std::fs::read(file)?)?,
    })
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let environment = model::init(&arguments.library)?;
    let model = Arc::new(Model::load(
        &environment,
        "model",
        &arguments.model,
        arguments.threads,
    )?);
    let inputs = Arc::new(
        arguments
            .inputs
            .iter()
            .map(|text| input(text))
            .collect::<Result<Vec<_>>>()?,
    );
    for _ in 0..20 {
        model.run(&inputs)?;
    }
    let (stop, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let (started, cpu) = (Instant::now(), process_cpu(std::process::id())?);
    let threads: Vec<_> = (0..arguments.threads)
        .map(|_| {
            let (model, inputs, stop, count) = (
                Arc::clone(&model),
                Arc::clone(&inputs),
                Arc::clone(&stop),
                Arc::clone(&count),
            );
            std::thread::spawn(move || -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    model.run(&inputs)?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    std::thread::sleep(Duration::from_secs_f64(arguments.seconds));
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    let (seconds, cpu) = (
        started.elapsed().as_secs_f64(),
        (process_cpu(std::process::id())? - cpu).as_secs_f64(),
    );
    let count = count.load(Ordering::Relaxed) as f64;
    println!(
        "{}",
        serde_json::json!({ "seconds": seconds, "cpu_seconds": cpu, "answers": count, "per_second": count / seconds,
            "per_cpu_second": count / cpu, "mean_us": arguments.threads as f64 * 1e6 * seconds / count })
    );
    Ok(())
}
