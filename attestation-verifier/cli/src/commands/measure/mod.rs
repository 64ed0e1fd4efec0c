//! `touchstone measure`: recomputes what hardware will report about a launch. Computing is all in `touchstone-launch`; here
//! files are read, and results printed.

mod events;
mod inputs;
mod snp;
mod tdx;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use touchstone_launch::Sha256;
use touchstone_launch::hash::Sha256Stream;
use touchstone_launch::measured::{Ingredient, Measured, Role};
use touchstone_launch::ovmf::MAX_FIRMWARE;

use crate::files;
use crate::output::{Failure, Outcome, print};

/// The check under which firmware that cannot be measured is refused.
const FIRMWARE: &str = "measure.firmware";

/// The largest kernel or initrd, in bytes. Files are hashed as they are read.
const MAX_BOOT_FILE: u64 = 4 << 30;

/// Recompute what the hardware will report about a launch: launch digests and registers, from the bytes that give them
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(
    after_help = "Example:\n  touchstone measure snp --firmware OVMF.fd --kernel vmlinuz --initrd initrd.img \
    --cmdline \"console=ttyS0\" --vcpus 1,2,4 --cpu EPYC-Genoa\n  \
    touchstone measure tdx --firmware OVMF.fd --page-add-order one-pass"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Snp(Box<snp::Args>),
    Tdx(Box<tdx::Args>),
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    match args.command {
        Command::Snp(args) => snp::run(*args),
        Command::Tdx(args) => tdx::run(*args),
    }
}

/// What boots after the firmware.
#[derive(clap::Args)]
struct Boot {
    /// Kernel file; without one, firmware alone is measured, and nothing is said about what boots after it
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initrd file; an empty one is measured where there is none
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The kernel's command line, exactly
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    cmdline: Option<String>,
    /// File with the kernel's command line; one line feed at its end does not belong to it
    #[arg(
        long,
        value_name = "FILE",
        requires = "kernel",
        conflicts_with = "cmdline"
    )]
    cmdline_file: Option<PathBuf>,
}

impl Boot {
    /// The command line's bytes, without a NUL behind them; empty where none is given.
    fn cmdline(&self) -> Result<Vec<u8>, Failure> {
        command_line(self.cmdline.as_deref(), self.cmdline_file.as_deref())
    }
}

/// A command line given as text or in a file; empty where none is given.
fn command_line(text: Option<&str>, file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let Some(path) = file else {
        return Ok(text.unwrap_or_default().as_bytes().to_vec());
    };
    let mut line = files::read(path, "command line", files::MAX_TEXT)?;
    // As the shell's "$(cat FILE)" does, which is how such a file becomes QEMU's argument.
    line.pop_if(|byte| *byte == b'\n');
    Ok(line)
}

/// Reads firmware whole; too much of it is for the library to refuse.
fn firmware(path: &Path) -> Result<(Vec<u8>, Ingredient), Failure> {
    let image = files::read_prefix(path, "firmware", MAX_FIRMWARE as u64)?;
    let ingredient = Ingredient {
        role: Role::Firmware,
        name: name(path),
        sha256: Sha256::of(&image),
        size: image.len() as u64,
    };
    Ok((image, ingredient))
}

/// Hashes a file without holding it.
fn hashed(role: Role, path: &Path) -> Result<Ingredient, Failure> {
    let what = match role {
        Role::Firmware => "firmware",
        Role::Kernel => "kernel",
        Role::Initrd => "initrd",
        Role::Cmdline => "command line",
    };
    let explain = || format!("cannot read {what} {}", path.display());
    let stream = || -> anyhow::Result<(Sha256, u64)> {
        let file = File::open(path).with_context(explain)?;
        if file.metadata().with_context(explain)?.is_dir() {
            bail!("cannot read {what} {}: it is a folder", path.display());
        }
        let mut file = file.take(MAX_BOOT_FILE + 1);
        let (mut hash, mut part) = (Sha256Stream::new(), vec![0; 1 << 20]);
        loop {
            let read = file.read(&mut part).with_context(explain)?;
            if read == 0 {
                return Ok(hash.finish());
            }
            hash.update(part.get(..read).unwrap_or_default());
        }
    };
    let (sha256, size) = stream()?;
    if size > MAX_BOOT_FILE {
        return Err(anyhow::anyhow!(
            "{what} {}: larger than the {MAX_BOOT_FILE} bytes such a file may have",
            path.display()
        )
        .into());
    }
    Ok(Ingredient {
        role,
        name: name(path),
        sha256,
        size,
    })
}

/// An ingredient that is given as bytes, or not at all.
fn ingredient(role: Role, name: &str, bytes: &[u8]) -> Ingredient {
    Ingredient {
        role,
        name: name.to_owned(),
        sha256: Sha256::of(bytes),
        size: bytes.len() as u64,
    }
}

/// A file's name, without its folder.
fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Prints results as one JSON object: what `manifest add` takes.
fn print_json(measured: &Measured) -> Result<(), Failure> {
    let text = serde_json::to_string(measured).context("results as JSON")?;
    print(&(text + "\n"));
    Ok(())
}
