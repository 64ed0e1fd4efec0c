//! `touchstone manifest new`, `add` and `add-model`: writing what will be signed.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use attestation_verifier::manifest::{
    Ingredient, MAX_FILE, Manifest, Measured, Measurement, MinimumTcb, Model, Origin, Platform,
    QuoteSource, Register, Release, Role,
};
use serde_json::json;
use touchstone_formats::Digest;
use touchstone_formats::digest::Hasher;
use touchstone_formats::text::hex_array;

use super::state::replace;
use super::{Given, given, made, malformed, manifest};
use crate::output::{Failure, Outcome};
use crate::{files, inputs};

/// Begin a manifest: a draft, JSON that people read and `add` adds to
#[derive(clap::Args)]
#[command(
    after_help = "The next version begins with the one before, signed or not, and drops the releases that end:\n  \
    touchstone manifest new --from manifest-17.jsonl --drop-release 1.3.0 --name touchstone-enclave --version 18 \
    --not-after 2027-12-01T00:00:00Z -o draft.json\n\n\
    Example:\n  touchstone manifest new --name touchstone-enclave --version 1 --not-after 2027-06-01T00:00:00Z -o draft.json"
)]
pub struct New {
    /// Name of the manifest; versions are counted under it
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Its version: higher than any before under this name
    #[arg(long, value_name = "N")]
    version: u64,
    /// The last second in which it counts
    #[arg(long, value_name = "RFC3339", value_parser = inputs::time)]
    not_after: u64,
    /// When it is made, instead of now
    #[arg(long, value_name = "RFC3339", value_parser = inputs::time)]
    issued: Option<u64>,
    /// Manifest whose releases and models it begins with
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Release that is not taken over; repeat for each
    #[arg(long, value_name = "R", requires = "from")]
    drop_release: Vec<String>,
    /// File to write, which must not exist
    #[arg(short, long, value_name = "DRAFT")]
    output: PathBuf,
    /// Print what was done as one JSON object
    #[arg(long)]
    json: bool,
}

/// Add a release on a platform to a draft, out of what `touchstone measure` found
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  touchstone manifest add draft.json --release 1.4.2 --platform qemu-genoa --measured measured.json \
    --quote-source exclusive --minimum-tcb Genoa:bootloader=9,tee=0,snp=23,microcode=72 \
    --origin firmware=pinned-binary --source firmware=https://example.com/OVMF.fd \
    --origin kernel=rebuilt --source kernel=linux-6.12.tar.xz --origin initrd=rebuilt --source initrd=release-1.4.2 \
    --origin cmdline=rebuilt --source cmdline=release-1.4.2"
)]
pub struct Add {
    /// Draft to add to
    file: PathBuf,
    /// The release
    #[arg(long, value_name = "R")]
    release: String,
    /// The last second in which a new release is accepted; the manifest's without it
    #[arg(long, value_name = "RFC3339", value_parser = inputs::time)]
    release_not_after: Option<u64>,
    /// Name of the platform, new in this release
    #[arg(long, value_name = "NAME")]
    platform: String,
    /// What `touchstone measure … --json` printed; - reads stdin
    #[arg(long, value_name = "MEASURED.json")]
    measured: PathBuf,
    /// How you came by an ingredient: rebuilt or pinned-binary; one for each
    #[arg(long, value_name = "ROLE=ORIGIN", value_parser = origin)]
    origin: Vec<(Role, Origin)>,
    /// Where an ingredient comes from: an address or words; one for each
    #[arg(long, value_name = "ROLE=TEXT", value_parser = source)]
    source: Vec<(Role, String)>,
    /// An ingredient that is inside another, such as onnxruntime=libonnxruntime.so; it is hashed
    #[arg(long, value_name = "ROLE=FILE", value_parser = source)]
    ingredient: Vec<(Role, String)>,
    /// Least TCB: PRODUCT:bootloader=N,tee=N,snp=N,microcode=N for each product, or tcb_evaluation_data_number=N
    #[arg(long, value_name = "TCB", required = true, value_parser = MinimumTcb::from_argument)]
    minimum_tcb: Vec<MinimumTcb>,
    /// Who on the machine can have quotes
    #[arg(long, value_enum, value_name = "WHO")]
    quote_source: Quotes,
    /// A value that RTMR0 may have, 96 hex digits, where the measurements name none; repeat for each
    #[arg(long, value_name = "HEX", value_parser = register)]
    rtmr0: Vec<Register>,
    /// Print what was done as one JSON object
    #[arg(long)]
    json: bool,
}

/// Add a model to a draft
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  touchstone manifest add-model draft.json --name fraud-score --version 3 --digest 5e…"
)]
pub struct AddModel {
    /// Draft to add to
    file: PathBuf,
    /// Its name
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Its version, words
    #[arg(long, value_name = "V")]
    version: String,
    /// Its identity, 64 hex digits
    #[arg(long, value_name = "HEX")]
    digest: Digest,
    /// Digest of a configuration that it may run with; repeat for each
    #[arg(long, value_name = "HEX")]
    config: Vec<Digest>,
    /// Print what was done as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Quotes {
    /// The measured software alone
    Exclusive,
    /// An agent that quotes for others too
    SharedAgent,
}

fn role(text: &str) -> Result<(Role, &str), String> {
    let expected =
        "expected ROLE=…, of firmware, kernel, initrd, cmdline, rootfs, enclave, onnxruntime";
    let pair = text.split_once('=');
    let pair = pair.and_then(|(role, rest)| Some((Role::from_name(role)?, rest)));
    pair.ok_or_else(|| expected.into())
}

fn origin(text: &str) -> Result<(Role, Origin), String> {
    let (role, name) = role(text)?;
    let origin = Origin::from_name(name).ok_or("expected rebuilt or pinned-binary")?;
    Ok((role, origin))
}

fn source(text: &str) -> Result<(Role, String), String> {
    role(text).map(|(role, text)| (role, text.to_owned()))
}

fn register(text: &str) -> Result<Register, String> {
    hex_array(text).map(Register).map_err(|e| e.to_string())
}

/// Runs `new`.
pub fn new(args: New) -> Result<Outcome, Failure> {
    let (mut releases, models) = match &args.from {
        None => (Vec::new(), Vec::new()),
        Some(path) => {
            let before = manifest(path)?;
            let newer = args.name != before.name || args.version > before.version;
            let version = before.version;
            ensure_usage(newer, || {
                format!("--version: {} has version {version} already", before.name)
            })?;
            (before.releases, before.models)
        }
    };
    for dropped in &args.drop_release {
        let count = releases.len();
        releases.retain(|release| release.release != *dropped);
        ensure_usage(releases.len() < count, || {
            format!("--drop-release {dropped}: there is no such release")
        })?;
    }
    let manifest = Manifest {
        name: args.name,
        version: args.version,
        issued: match args.issued {
            Some(issued) => issued,
            None => inputs::now()?,
        },
        not_after: args.not_after,
        releases,
        models,
    };
    // Nobody else's file is at fault here.
    let text = manifest.to_draft().map_err(|error| anyhow!("{error}"))?;
    files::write_new(&args.output, text.as_bytes())?;
    let words = format!("wrote {}: a draft\n", args.output.display());
    Ok(made(args.json, "new", said(&manifest), &words))
}

fn ensure_usage(holds: bool, words: impl FnOnce() -> String) -> Result<()> {
    ensure!(holds, words());
    Ok(())
}

fn said(manifest: &Manifest) -> serde_json::Value {
    json!({
        "manifest": manifest.name,
        "version": manifest.version,
        "releases": manifest.releases.len(),
        "models": manifest.models.len(),
    })
}

/// A draft to change: what is signed is not changed any more.
fn draft(path: &Path) -> Result<Manifest, Failure> {
    match given(path)? {
        Given::Draft(manifest) => Ok(manifest),
        Given::Signed(..) => Err(anyhow!(
            "{} is signed, and is not changed: begin the next version with manifest new --from",
            path.display()
        )
        .into()),
    }
}

/// Writes a draft that was changed; nothing if it breaks a rule of the format.
fn save(path: &Path, manifest: &Manifest) -> Result<()> {
    let text = manifest
        .to_draft()
        .map_err(|error| anyhow!("not added: {error}"))?;
    ensure!(
        text.len() <= MAX_FILE,
        "not added: the draft would have more than {MAX_FILE} bytes"
    );
    replace(path, text.as_bytes())
}

/// Runs `add-model`.
pub fn add_model(args: AddModel) -> Result<Outcome, Failure> {
    let mut manifest = draft(&args.file)?;
    let words = format!("added model {} version {}\n", args.name, args.version);
    manifest.models.push(Model {
        name: args.name,
        version: args.version,
        model_digest: args.digest,
        config_digests: args.config,
    });
    save(&args.file, &manifest)?;
    Ok(made(args.json, "add-model", said(&manifest), &words))
}

/// Runs `add`.
pub fn add(args: Add) -> Result<Outcome, Failure> {
    let mut manifest = draft(&args.file)?;
    let measured = measured(&args.measured)?;
    let mut words = String::new();
    match &measured.confirmed {
        Some(by) => words += &format!("the way it was measured is confirmed by {by}\n"),
        None => words += "note: no hardware has confirmed the way this was measured\n",
    }
    let platform = platform(&args, measured)?;
    words += &format!(
        "added release {}, platform {}: {} measurements, {} ingredients\n",
        args.release,
        args.platform,
        platform.measurements.len(),
        platform.ingredients.len()
    );
    let found = manifest.releases.iter_mut();
    match found.into_iter().find(|r| r.release == args.release) {
        Some(release) => {
            if let Some(not_after) = args.release_not_after {
                ensure_usage(not_after == release.not_after, || {
                    "--release-not-after: the release is there already, and ends otherwise".into()
                })?;
            }
            release.platforms.push(platform);
        }
        None => manifest.releases.push(Release {
            release: args.release.clone(),
            not_after: args.release_not_after.unwrap_or(manifest.not_after),
            platforms: vec![platform],
        }),
    }
    save(&args.file, &manifest)?;
    Ok(made(args.json, "add", said(&manifest), &words))
}

fn measured(path: &Path) -> Result<Measured, Failure> {
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        let mut stdin = std::io::stdin().lock().take(MAX_FILE as u64 + 1);
        stdin.read_to_end(&mut text).context("cannot read stdin")?;
        text
    } else {
        files::read(path, "measurements", MAX_FILE as u64)?
    };
    Measured::parse(&text).map_err(malformed(path))
}

fn platform(args: &Add, measured: Measured) -> Result<Platform> {
    let mut found: Vec<(Role, String, Digest, u64)> = measured
        .ingredients
        .into_iter()
        .map(|i| (i.role, i.name, i.sha256, i.size))
        .collect();
    for (role, path) in &args.ingredient {
        let (name, sha256, size) = hashed(Path::new(path))?;
        found.push((*role, name, sha256, size));
    }
    let named = args.origin.iter().map(|(role, _)| role);
    for role in named.chain(args.source.iter().map(|(role, _)| role)) {
        let known = found.iter().any(|(found, ..)| found == role);
        ensure!(known, "there is no ingredient {}", role.name());
    }
    let ingredients = found.into_iter().map(|(role, name, sha256, size)| {
        let origin = only(&args.origin, role, "--origin")?;
        let source = only(&args.source, role, "--source")?;
        Ok(Ingredient {
            role,
            name,
            sha256,
            size,
            origin,
            source,
        })
    });
    let ingredients = ingredients.collect::<Result<Vec<_>>>()?;
    let mut floors = args.minimum_tcb.iter().cloned();
    let first = floors.next().context("--minimum-tcb is missing")?;
    let minimum_tcb = floors
        .try_fold(first, MinimumTcb::and)
        .map_err(|error| anyhow!("--minimum-tcb: {error}"))?;
    let mut measurements = measured.measurements;
    for measurement in &mut measurements {
        match measurement {
            Measurement::Tdx(tdx) if tdx.rtmr0.is_empty() => tdx.rtmr0 = args.rtmr0.clone(),
            _ if args.rtmr0.is_empty() => {}
            _ => bail!("--rtmr0: the measurements are not TDX's, or name values of RTMR0 already"),
        }
    }
    Ok(Platform {
        name: args.platform.clone(),
        tee: measured.tee,
        vmm: measured.vmm,
        os_binding: measured.os_binding,
        quote_source: match args.quote_source {
            Quotes::Exclusive => QuoteSource::Exclusive,
            Quotes::SharedAgent => QuoteSource::SharedAgent,
        },
        ingredients,
        minimum_tcb,
        measurements,
    })
}

/// What was said of a role: once, and not left out.
fn only<T: Clone>(given: &[(Role, T)], role: Role, option: &str) -> Result<T> {
    let mut of_role = given.iter().filter(|(of, _)| *of == role);
    let name = role.name();
    let (_, value) = of_role
        .next()
        .with_context(|| format!("{option} {name}=… is missing"))?;
    ensure!(of_role.next().is_none(), "{option} {name}=… is given twice");
    Ok(value.clone())
}

/// A file's name, SHA-256 and size; it may be large.
fn hashed(path: &Path) -> Result<(String, Digest, u64)> {
    let what = || format!("ingredient {}", path.display());
    let mut file = std::fs::File::open(path).with_context(what)?;
    let mut hash = Hasher::new();
    let (mut size, mut part) = (0_u64, vec![0; 1 << 16]);
    loop {
        let count = file.read(&mut part).with_context(what)?;
        if count == 0 {
            break;
        }
        hash.update(&part[..count]);
        size += count as u64;
    }
    let name = path.file_name().with_context(what)?;
    let name = name.to_str().with_context(what)?.to_owned();
    Ok((name, hash.finish(), size))
}
