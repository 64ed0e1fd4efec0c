//! `touchstone measure snp`: launch digests of SEV-SNP.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use touchstone_launch::Sha384;
use touchstone_launch::measured::{
    Ingredient, Measured, Measurement, OsBinding, Role, SnpMeasurement, VERSION,
};
use touchstone_launch::snp::derivation::{Derivation, GuestDerivation, Run};
use touchstone_launch::snp::{Cpu, Firmware, Guest, Kernel, Launch, SnpError, Vmm};

use super::inputs::Inputs;
use super::{Boot, FIRMWARE, firmware, hashed, ingredient, print_json};
use crate::files;
use crate::output::{Failure, Outcome, clean, print};

/// The most combinations of vcpus, CPU and guest features that one run computes.
const MAX_GUESTS: usize = 4096;

/// Compute launch digests of SEV-SNP: what a report's MEASUREMENT will be
///
/// Measured are the firmware, the memory that its SEV metadata names, the hashes of kernel, initrd and command line (QEMU with
/// kernel-hashes=on), and the registers each virtual CPU begins with. Every combination of --vcpus, --cpu (or
/// --cpu-sig) and --guest-features is computed. Firmware that cannot be measured, or that would not check the kernel, is exit 2. What
/// no report signed by hardware has confirmed is marked so.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  touchstone measure snp --firmware OVMF.fd --kernel vmlinuz --initrd initrd.img \
    --cmdline \"console=ttyS0\" --vcpus 1,2,4 --cpu EPYC-Milan,EPYC-Genoa --guest-features 0x1 --vmm qemu --json\n  \
    touchstone measure snp --firmware OVMF.fd --vcpus 2 --vmm ec2 --explain"
)]
pub struct Args {
    /// Firmware: an OVMF image with SEV metadata
    #[arg(long, value_name = "FILE", required_unless_present = "inputs")]
    firmware: Option<PathBuf>,
    #[command(flatten)]
    boot: Boot,
    /// Numbers of virtual CPUs, with commas between
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        required_unless_present = "inputs"
    )]
    vcpus: Vec<u32>,
    /// CPU models as QEMU names them, with commas between: the digest depends on them under qemu alone
    #[arg(long, value_name = "MODEL,…", value_delimiter = ',', value_parser = cpu)]
    cpu: Vec<Cpu>,
    /// CPU signatures (CPUID leaf 1, EAX) of models that have no name here, such as 0x00a10f10
    #[arg(long, value_name = "HEX,…", value_delimiter = ',', value_parser = cpu_signature)]
    cpu_sig: Vec<Cpu>,
    /// Values of SEV_FEATURES, with commas between; bit 0 (SEV-SNP active) is set in each
    #[arg(long, value_name = "HEX,…", value_delimiter = ',', value_parser = number, default_value = "0x1")]
    guest_features: Vec<u64>,
    /// Virtual machine monitor: qemu, ec2 or gce
    #[arg(long, value_name = "VMM", value_parser = vmm, default_value = "qemu")]
    vmm: Vmm,
    /// Instead of all that: a JSON file with the digest of the firmware's pages, its sections, and the hashes of kernel and
    /// initrd, as dstack keeps them
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "firmware", "kernel", "initrd", "cmdline", "cmdline_file", "vcpus", "cpu", "cpu_sig", "guest_features", "vmm",
    ])]
    inputs: Option<PathBuf>,
    /// Print how the digests come about: pages, their types, their contents' digests, and the launch digest after each
    #[arg(long)]
    explain: bool,
    /// Print one JSON object: what `manifest add` takes, or with --explain the derivation
    #[arg(long)]
    json: bool,
}

/// Reads the name of a CPU model.
fn cpu(text: &str) -> Result<Cpu, String> {
    Cpu::named(text).ok_or_else(|| {
        let names: Vec<&str> = Cpu::names().collect();
        format!(
            "unknown; expected one of {}, or --cpu-sig",
            names.join(", ")
        )
    })
}

/// Reads a CPU signature.
fn cpu_signature(text: &str) -> Result<Cpu, String> {
    let number = number(text)?;
    let signature = u32::try_from(number).map_err(|_| "expected 32 bits".to_owned())?;
    Ok(Cpu::of_signature(signature))
}

/// Reads `0x` and hexadecimal digits, or a decimal number.
fn number(text: &str) -> Result<u64, String> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // `from_str_radix` takes a sign.
    match digits.starts_with('+') {
        true => None,
        false => u64::from_str_radix(digits, radix).ok(),
    }
    .ok_or_else(|| "expected a number such as 0x1".to_owned())
}

/// Reads the name of a VMM.
fn vmm(text: &str) -> Result<Vmm, String> {
    let found = Vmm::ALL.into_iter().find(|vmm| vmm.name() == text);
    found.ok_or_else(|| match text {
        "krun" => "libkrun boots no OVMF; what it measures is not computed here".to_owned(),
        _ => "expected qemu, ec2 or gce".to_owned(),
    })
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let measuring = match &args.inputs {
        Some(path) => Measuring::of_inputs(path)?,
        None => Measuring::of_files(&args)?,
    };
    let Measuring {
        launch,
        guests,
        ingredients,
        ..
    } = &measuring;
    if args.explain {
        let derivation = launch.derivation(guests).map_err(refused)?;
        match args.json {
            true => print(&(derivation_json(launch.vmm(), &derivation).to_string() + "\n")),
            false => print(&clean(&derivation_words(&measuring, &derivation))),
        }
        return Ok(Outcome::Exit(0));
    }
    let rows = guests
        .iter()
        .map(|guest| Ok((guest, launch.digest(guest)?, launch.confirmed(guest))))
        .collect::<Result<Vec<Row>, SnpError>>()
        .map_err(refused)?;
    if args.json && ingredients.is_empty() {
        return Err(
            anyhow!("--json: a manifest names files, and --inputs gives hashes alone").into(),
        );
    }
    if !args.json {
        print(&clean(&table(&measuring, &rows)));
        return Ok(Outcome::Exit(0));
    }
    let confirmed: Vec<Option<&str>> = rows.iter().map(|(_, _, confirmed)| *confirmed).collect();
    print_json(&Measured {
        v: VERSION,
        tee: "sev-snp",
        vmm: launch.vmm().name().to_owned(),
        os_binding: measuring.os_binding(),
        confirmed: match confirmed.as_slice() {
            [first, rest @ ..] if rest.iter().all(|other| other == first) => *first,
            _ => None,
        },
        ingredients: ingredients.clone(),
        measurements: rows
            .into_iter()
            .map(|(guest, measurement, _)| {
                Measurement::Snp(SnpMeasurement {
                    measurement,
                    vcpus: guest.vcpus,
                    cpu: cpu_name(guest),
                    guest_features: format!("{:#x}", guest.features),
                })
            })
            .collect(),
    })?;
    Ok(Outcome::Exit(0))
}

type Row<'a> = (&'a Guest, Sha384, Option<&'static str>);

/// What is measured.
struct Measuring {
    launch: Launch,
    guests: Vec<Guest>,
    /// None where only hashes were given.
    ingredients: Vec<Ingredient>,
    kernel: bool,
}

impl Measuring {
    fn of_files(args: &Args) -> Result<Measuring, Failure> {
        let path = args.firmware.as_deref().context("--firmware is missing")?;
        let guests = guests(args)?;
        let (image, found) = firmware(path)?;
        let named = refused_in(path);
        let mut ingredients = vec![found];
        let measured = Firmware::of(&image).map_err(|error| named(error.into()))?;
        let boot = &args.boot;
        let kernel = match &boot.kernel {
            None => None,
            Some(file) => {
                // Before files are hashed that may be large.
                if !args.vmm.hashes_kernel() {
                    return Err(refused(SnpError::NoKernelHashes { vmm: args.vmm }));
                }
                let cmdline = boot.cmdline()?;
                let found = hashed(Role::Kernel, file)?;
                let initrd = match &boot.initrd {
                    Some(file) => hashed(Role::Initrd, file)?,
                    None => ingredient(Role::Initrd, "none", b""),
                };
                let kernel = Kernel::new(found.sha256, Some(initrd.sha256), &cmdline);
                ingredients.extend([
                    found,
                    initrd,
                    ingredient(Role::Cmdline, "cmdline", &cmdline),
                ]);
                Some(kernel.map_err(refused)?)
            }
        };
        Ok(Measuring {
            launch: Launch::new(measured, args.vmm, kernel).map_err(&named)?,
            guests,
            ingredients,
            kernel: kernel.is_some(),
        })
    }

    fn of_inputs(path: &Path) -> Result<Measuring, Failure> {
        let text = files::read_text(path, "inputs", files::MAX_TEXT)?;
        let inputs = Inputs::parse(&text);
        let inputs = inputs.map_err(|error| {
            Failure::malformed("measure.inputs", error.context(path.display().to_string()))
        })?;
        let named = refused_in(path);
        let kernel = inputs.kernel().map_err(&named)?;
        let firmware = inputs.firmware().map_err(|error| named(error.into()))?;
        Ok(Measuring {
            launch: Launch::new(firmware, Vmm::Qemu, Some(kernel)).map_err(&named)?,
            guests: vec![inputs.guest],
            ingredients: Vec::new(),
            kernel: true,
        })
    }

    fn os_binding(&self) -> OsBinding {
        match self.kernel {
            true => OsBinding::LaunchDigest,
            false => OsBinding::None,
        }
    }

    /// What the operating system's part in it is, in words.
    fn binding_words(&self) -> &'static str {
        match self.kernel {
            true => "launch-digest: the digests bind kernel, initrd and command line\n",
            false => {
                "none: the digests bind firmware alone, and whatever boots after it gives the same\n"
            }
        }
    }
}

/// Every combination that was asked for, once.
fn guests(args: &Args) -> Result<Vec<Guest>, Failure> {
    let mut cpus: Vec<Option<Cpu>> = args
        .cpu
        .iter()
        .chain(&args.cpu_sig)
        .cloned()
        .map(Some)
        .collect();
    if cpus.is_empty() {
        cpus.push(None);
    }
    let count = args.vcpus.len() * cpus.len() * args.guest_features.len();
    if count > MAX_GUESTS {
        return Err(anyhow!("{count} combinations; expected at most {MAX_GUESTS}").into());
    }
    let mut guests: Vec<Guest> = Vec::with_capacity(count);
    for cpu in &cpus {
        for features in &args.guest_features {
            for vcpus in &args.vcpus {
                let guest = Guest {
                    vcpus: *vcpus,
                    cpu: cpu.clone(),
                    features: *features,
                };
                if !guests.contains(&guest) {
                    guests.push(guest);
                }
            }
        }
    }
    Ok(guests)
}

/// What the library refused: firmware is malformed (2), the rest is the arguments' fault (1).
fn refused(error: SnpError) -> Failure {
    match error {
        SnpError::Firmware(_) => Failure::malformed(FIRMWARE, error.into()),
        _ => Failure::from(anyhow::Error::from(error)),
    }
}

/// As [`refused`]; names the file that malformed firmware was read from.
fn refused_in(path: &Path) -> impl Fn(SnpError) -> Failure {
    move |error| match error {
        SnpError::Firmware(_) => {
            let error = anyhow::Error::from(error).context(path.display().to_string());
            Failure::malformed(FIRMWARE, error)
        }
        _ => refused(error),
    }
}

fn cpu_name(guest: &Guest) -> String {
    guest
        .cpu
        .as_ref()
        .map_or_else(|| "any".to_owned(), Cpu::to_string)
}

fn table(measuring: &Measuring, rows: &[Row]) -> String {
    let vmm = measuring.launch.vmm().name();
    let mut out = format!("SEV-SNP launch digests under {vmm}\n");
    for Ingredient {
        role,
        name,
        sha256,
        size,
    } in &measuring.ingredients
    {
        let role = format!("{role:?}").to_lowercase();
        out += &format!("  {role:8}  {sha256}  {size} bytes  {name}\n");
    }
    out += "  binding   ";
    out += measuring.binding_words();
    let width = rows
        .iter()
        .map(|(guest, ..)| cpu_name(guest).len())
        .max()
        .unwrap_or(0)
        .max(3);
    out += &format!(
        "{:>5}  {:width$}  features  {:96}  confirmed by\n",
        "vcpus", "cpu", "launch digest"
    );
    for (guest, digest, confirmed) in rows {
        let Guest {
            vcpus, features, ..
        } = guest;
        let features = format!("{features:#x}");
        let confirmed = confirmed.unwrap_or("not confirmed by hardware");
        out += &format!(
            "{vcpus:5}  {:width$}  {features:8}  {digest}  {confirmed}\n",
            cpu_name(guest)
        );
    }
    out
}

/// The first 16 digits: enough to find the page at which two derivations part.
fn brief(digest: Sha384) -> String {
    format!("{:.16}…", digest.to_string())
}

fn derivation_words(measuring: &Measuring, derivation: &Derivation) -> String {
    let mut out = format!(
        "How SEV-SNP launch digests under {} come about\nbegins with    {}\n",
        measuring.launch.vmm().name(),
        derivation.before
    );
    out += "guest physical addresses           pages  type        contents           digest after       what\n";
    out.extend(derivation.common.iter().map(run_words));
    if let Some((gpa, kernel)) = &derivation.kernel {
        out += &format!(
            "table of hashes at {gpa:#x}\n  cmdline (with its NUL)  {}\n  initrd  {}\n  kernel  {}\n",
            kernel.cmdline, kernel.initrd, kernel.kernel
        );
    }
    for GuestDerivation {
        guest,
        eip: [first, others],
        rdx,
        runs,
        digest,
    } in &derivation.guests
    {
        out += &format!(
            "\nvcpus {}, cpu {}, features {:#x}: vcpu 0 begins at {first:#x}, others at {others:#x}; RDX {rdx:#x}\n",
            guest.vcpus,
            cpu_name(guest),
            guest.features
        );
        out.extend(runs.iter().map(run_words));
        let confirmed = measuring.launch.confirmed(guest);
        let confirmed = confirmed.unwrap_or("not confirmed by hardware");
        out += &format!("launch digest  {digest}  {confirmed}\n");
    }
    out
}

fn run_words(run: &Run) -> String {
    let contents = match run.first.contents {
        Sha384::ZERO => "not hashed".to_owned(),
        contents => brief(contents),
    };
    format!(
        "{:#014x} - {:#014x}  {:6}  {:10}  {contents:17}  {}  {}\n",
        run.first.gpa,
        run.last_byte(),
        run.count,
        run.first.kind.name(),
        brief(run.after),
        run.what
    )
}

fn derivation_json(vmm: Vmm, derivation: &Derivation) -> Value {
    let kernel = derivation.kernel.as_ref().map(|(gpa, kernel)| {
        json!({
            "gpa": format!("{gpa:#x}"),
            "cmdline": kernel.cmdline,
            "initrd": kernel.initrd,
            "kernel": kernel.kernel,
        })
    });
    let guests = derivation.guests.iter().map(|guest| {
        json!({
            "vcpus": guest.guest.vcpus,
            "cpu": cpu_name(&guest.guest),
            "guest_features": format!("{:#x}", guest.guest.features),
            "eip": guest.eip.map(|eip| format!("{eip:#x}")),
            "rdx": format!("{:#x}", guest.rdx),
            "pages": guest.runs.iter().map(run_json).collect::<Vec<_>>(),
            "measurement": guest.digest,
        })
    });
    json!({
        "v": "touchstone/derivation/1",
        "tee": "sev-snp",
        "vmm": vmm.name(),
        "begins_with": derivation.before,
        "pages": derivation.common.iter().map(run_json).collect::<Vec<_>>(),
        "kernel_hashes": kernel,
        "guests": guests.collect::<Vec<_>>(),
    })
}

fn run_json(run: &Run) -> Value {
    json!({
        "gpa": format!("{:#x}", run.first.gpa),
        "count": run.count,
        "type": run.first.kind.name(),
        "contents": run.first.contents,
        "digest_after": run.after,
        "what": run.what,
    })
}
