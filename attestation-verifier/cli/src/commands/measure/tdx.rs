//! `touchstone measure tdx`: MRTD, RTMR1 and RTMR2 of TDX; RTMR0 where it was seen.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use touchstone_launch::Sha384;
use touchstone_launch::measured::{
    Ingredient, Measured, Measurement, OsBinding, Role, TdxMeasurement, VERSION,
};
use touchstone_launch::ovmf::Ovmf;
use touchstone_launch::tdx::kernel::{KernelError, MAX_KERNEL};
use touchstone_launch::tdx::mrtd::{PageAddOrder, derivation, mrtd};
use touchstone_launch::tdx::rtmr::{Boot, BootError, Edk2, Event, SetupHeader, replay};
use touchstone_launch::tdx::tdvf::{Tdvf, TdvfError};

use super::events::Seen;
use super::{FIRMWARE, command_line, firmware, ingredient, name, print_json};
use crate::files;
use crate::output::{Failure, Outcome, clean, print};

/// The check under which a kernel that cannot be measured is refused.
const KERNEL: &str = "measure.kernel";

/// The largest initrd, in bytes.
const MAX_INITRD: u64 = 1 << 30;

/// The most combinations of page-add orders and sizes of memory that one run computes.
const MAX_COMBINATIONS: usize = 64;

/// Compute MRTD, RTMR1 and RTMR2 of TDX: what a quote will hold of a guest that QEMU and OVMF boot
///
/// MRTD is over the pages of the firmware, in the order in which the VMM adds and measures them. RTMR1 is over the kernel and
/// RTMR2 over command line and initrd, as OVMF and the kernel's EFI stub measure them when QEMU loads all three. RTMR0 (ACPI tables
/// and the list of memory) is not computed: give values that were seen, or an event log from which it is replayed once the
/// log's RTMR1 and RTMR2 are found to be those computed here. Firmware or a kernel that cannot be measured is exit 2. No
/// measurement of these bytes has been confirmed by hardware, and all are marked so.
#[derive(clap::Args)]
#[command(
    after_help = "Which --setup-header: as-is with QEMU 10.0 or later and OVMF of edk2-stable202502 or later, else patched. \
    Which --edk2: the latest that is not newer than the firmware; what is older than 202411 measures otherwise. Which \
    --page-add-order: one-pass with Linux 6.16 and QEMU 10.1 or later, two-pass with the QEMU 8.2 that Canonical and Intel gave out.\n\n\
    Example:\n  touchstone measure tdx --firmware OVMF.fd --page-add-order one-pass --kernel vmlinuz --initrd initrd.img \
    --cmdline \"console=hvc0\" --setup-header as-is --edk2 202508 --json\n  \
    touchstone measure tdx --firmware OVMF.fd --page-add-order one-pass,two-pass --explain"
)]
pub struct Args {
    /// Firmware: a whole OVMF image with TDX metadata (OVMF.fd, not OVMF_CODE.fd)
    #[arg(long, value_name = "FILE")]
    firmware: PathBuf,
    /// In which order the VMM adds and measures pages: one-pass or two-pass, or both with a comma between
    #[arg(long, value_name = "ORDER", value_delimiter = ',', required = true)]
    page_add_order: Vec<PageAddOrder>,
    /// Virtual machine monitor
    #[arg(long, value_name = "VMM", value_parser = ["qemu"], default_value = "qemu")]
    vmm: String,
    /// Kernel file (bzImage with an EFI stub); without one, firmware alone is measured, and nothing is said about what boots
    /// after it
    #[arg(long, value_name = "FILE", requires_all = ["initrd", "line", "setup_header", "edk2"])]
    kernel: Option<PathBuf>,
    /// Initrd file
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The kernel's command line, exactly as QEMU's -append has it (OVMF adds initrd=initrd)
    #[arg(long, value_name = "TEXT", requires = "kernel", group = "line")]
    cmdline: Option<String>,
    /// File with the kernel's command line; one line feed at its end does not belong to it
    #[arg(long, value_name = "FILE", requires = "kernel", group = "line")]
    cmdline_file: Option<PathBuf>,
    /// Which kernel the firmware gets: with what QEMU writes into its setup header, or as it is in its file
    #[arg(long, value_name = "WHICH", value_enum, requires = "kernel")]
    setup_header: Option<Header>,
    /// Memory of the guest, such as 2G, or several with commas: with --setup-header patched, RTMR1 depends on it
    #[arg(long, value_name = "SIZE,…", value_delimiter = ',', value_parser = memory, requires = "kernel")]
    memory: Vec<u64>,
    /// The release of EDK II that the firmware measures a boot like
    #[arg(long, value_name = "RELEASE", value_enum, requires = "kernel")]
    edk2: Option<Release>,
    /// A value that RTMR0 may have, 96 hexadecimal digits; can be given again
    #[arg(long, value_name = "HEX", requires = "kernel")]
    rtmr0: Vec<Sha384>,
    /// Event log (the ACPI table CCEL's, or dstack's JSON) of a guest with this firmware, kernel, initrd and command line: its
    /// RTMR0 is one more value; can be given again
    #[arg(long, value_name = "FILE", requires = "kernel")]
    event_log: Vec<PathBuf>,
    /// Print how the registers come about: section by section, and event by event
    #[arg(long)]
    explain: bool,
    /// Print one JSON object: what `manifest add` takes, or with --explain the derivation
    #[arg(long)]
    json: bool,
}

/// `--setup-header`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Header {
    /// QEMU before 10.0, or OVMF before edk2-stable202502
    Patched,
    /// QEMU since 10.0 with OVMF since edk2-stable202502
    AsIs,
}

/// `--edk2`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Release {
    /// edk2-stable202411 to 202505
    #[value(name = "202411")]
    Stable202411,
    /// edk2-stable202508 and later
    #[value(name = "202508")]
    Stable202508,
}

impl From<Release> for Edk2 {
    fn from(release: Release) -> Edk2 {
        match release {
            Release::Stable202411 => Edk2::Stable202411,
            Release::Stable202508 => Edk2::Stable202508,
        }
    }
}

/// Reads a size of memory.
fn memory(text: &str) -> Result<u64, String> {
    let unit = match text.as_bytes().last() {
        Some(b'M') => 20,
        Some(b'G') => 30,
        Some(b'T') => 40,
        _ => 0,
    };
    let digits = text.strip_suffix(['M', 'G', 'T']).unwrap_or_default();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| plain);
    number
        .and_then(|number| number.checked_mul(1 << unit))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "expected a number and M, G or T, such as 2G".to_owned())
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let headers = headers(&args)?;
    let (image, found) = firmware(&args.firmware)?;
    let within = |error: TdvfError| {
        let file = args.firmware.display().to_string();
        Failure::malformed(FIRMWARE, anyhow::Error::from(error).context(file))
    };
    let ovmf = Ovmf::parse(&image).map_err(|error| within(error.into()))?;
    let tdvf = Tdvf::parse(&ovmf).map_err(within)?;
    let mut ingredients = vec![found];
    let events = match &args.kernel {
        None => None,
        Some(kernel) => {
            let (events, found) = boots(&args, kernel, &headers)?;
            ingredients.extend(found);
            Some(events)
        }
    };
    if args.explain {
        let derivation = Derivation {
            firmware: &tdvf,
            orders: &args.page_add_order,
            boots: events.as_deref().unwrap_or_default(),
        };
        match args.json {
            true => print(&(derivation.json(&args.vmm).to_string() + "\n")),
            false => print(&clean(&derivation.words())),
        }
        return Ok(Outcome::Exit(0));
    }
    let mut rows = Vec::new();
    for order in &args.page_add_order {
        let mrtd = mrtd(&tdvf, *order);
        let row = |memory, rtmr1, rtmr2| Row {
            memory,
            registers: TdxMeasurement {
                mrtd,
                rtmr0: Vec::new(),
                rtmr1,
                rtmr2,
                page_add_order: order.name(),
            },
        };
        match &events {
            None => rows.push(row(None, None, None)),
            Some(events) => rows.extend(events.iter().map(|(header, events)| {
                row(
                    of_memory(*header),
                    Some(replay(events, 1)),
                    Some(replay(events, 2)),
                )
            })),
        }
    }
    allow(&args, &tdvf, &mut rows)?;
    let os_binding = match events {
        None => OsBinding::None,
        Some(_) => OsBinding::Rtmr,
    };
    if !args.json {
        print(&clean(&table(&args.vmm, os_binding, &ingredients, &rows)));
        return Ok(Outcome::Exit(0));
    }
    // Sizes of memory that give the same are one measurement.
    let mut measurements: Vec<Measurement> = Vec::with_capacity(rows.len());
    for row in rows {
        let measurement = Measurement::Tdx(row.registers);
        if !measurements.contains(&measurement) {
            measurements.push(measurement);
        }
    }
    print_json(&Measured {
        v: VERSION,
        tee: "tdx",
        vmm: args.vmm,
        os_binding,
        confirmed: None,
        ingredients,
        measurements,
    })?;
    Ok(Outcome::Exit(0))
}

/// The kernels that the firmware may get: none without a kernel, one for each size of memory if it depends on that.
fn headers(args: &Args) -> Result<Vec<SetupHeader>, Failure> {
    let headers: Vec<SetupHeader> = match args.setup_header {
        None => Vec::new(),
        Some(Header::AsIs) if args.memory.is_empty() => vec![SetupHeader::AsIs],
        Some(Header::AsIs) => {
            return Err(
                anyhow!("--memory: with --setup-header as-is nothing depends on it").into(),
            );
        }
        Some(Header::Patched) if args.memory.is_empty() => {
            return Err(anyhow!(
                "--memory is missing: with --setup-header patched RTMR1 depends on it"
            )
            .into());
        }
        Some(Header::Patched) => {
            let memory = args.memory.iter().copied();
            memory
                .map(|memory| SetupHeader::Patched { memory })
                .collect()
        }
    };
    let count = args.page_add_order.len() * headers.len().max(1);
    if count > MAX_COMBINATIONS {
        return Err(anyhow!("{count} combinations; expected at most {MAX_COMBINATIONS}").into());
    }
    Ok(headers)
}

fn of_memory(header: SetupHeader) -> Option<u64> {
    match header {
        SetupHeader::Patched { memory } => Some(memory),
        SetupHeader::AsIs => None,
    }
}

/// What is measured while the kernel boots, and in which way it was handed on.
type Booted = (SetupHeader, Vec<Event>);

/// The events of each boot, and the files that they are of.
fn boots(
    args: &Args,
    kernel: &Path,
    headers: &[SetupHeader],
) -> Result<(Vec<Booted>, [Ingredient; 3]), Failure> {
    let initrd = args.initrd.as_deref().context("--initrd is missing")?;
    let edk2 = args.edk2.context("--edk2 is missing")?.into();
    let line = command_line(args.cmdline.as_deref(), args.cmdline_file.as_deref())?;
    let image = files::read(kernel, "kernel", MAX_KERNEL as u64)?;
    let disk = files::read(initrd, "initrd", MAX_INITRD)?;
    let refused = |error: BootError| match error {
        BootError::Kernel(KernelError::InitrdDoesNotFit { .. }) => {
            Failure::from(anyhow::Error::from(error))
        }
        BootError::Kernel(error) => {
            let error = anyhow::Error::from(error).context(kernel.display().to_string());
            Failure::malformed(KERNEL, error)
        }
        _ => Failure::from(anyhow::Error::from(error)),
    };
    let text = std::str::from_utf8(&line).context("--cmdline-file: not UTF-8")?;
    let boot = Boot::new(&image, &disk, text).map_err(refused)?;
    let mut booted = Vec::with_capacity(headers.len());
    for header in headers {
        booted.push((*header, boot.events(*header, edk2).map_err(refused)?));
    }
    let ingredients = [
        ingredient(Role::Kernel, &name(kernel), &image),
        ingredient(Role::Initrd, &name(initrd), &disk),
        ingredient(Role::Cmdline, "cmdline", &line),
    ];
    Ok((booted, ingredients))
}

/// Gives measurements the values of RTMR0 that were seen with them.
fn allow(args: &Args, firmware: &Tdvf<'_>, rows: &mut [Row]) -> Result<(), Failure> {
    for row in rows.iter_mut() {
        row.registers.rtmr0.extend(&args.rtmr0);
    }
    for path in &args.event_log {
        let seen = Seen::read(path)?;
        let rtmr0 = seen.rtmr0_with(firmware)?;
        let mut of_this = false;
        for row in rows.iter_mut() {
            let TdxMeasurement { rtmr1, rtmr2, .. } = &row.registers;
            if seen.is_of(*rtmr1, *rtmr2) {
                row.registers.rtmr0.push(rtmr0);
                of_this = true;
            }
        }
        if !of_this {
            let computed = rows
                .first()
                .map(|row| (row.registers.rtmr1, row.registers.rtmr2));
            return Err(seen.of_another_boot(computed.unwrap_or_default()));
        }
    }
    for row in rows.iter_mut() {
        row.registers.rtmr0.sort_unstable();
        row.registers.rtmr0.dedup();
    }
    Ok(())
}

/// One measurement.
struct Row {
    /// In bytes, where a register depends on it.
    memory: Option<u64>,
    registers: TdxMeasurement,
}

fn table(vmm: &str, os_binding: OsBinding, ingredients: &[Ingredient], rows: &[Row]) -> String {
    let mut out = format!("TDX measurements under {vmm}\n");
    for Ingredient {
        role,
        name,
        sha256,
        size,
    } in ingredients
    {
        let role = format!("{role:?}").to_lowercase();
        out += &format!("  {role:8}  {sha256}  {size} bytes  {name}\n");
    }
    out += match os_binding {
        OsBinding::Rtmr => {
            "  binding   rtmr: RTMR1 and RTMR2 bind kernel, initrd and command line\n"
        }
        _ => {
            "  binding   none: MRTD binds firmware alone, and whatever boots after it gives the same\n"
        }
    };
    for Row { memory, registers } in rows {
        out += &format!("page-add order {}", registers.page_add_order);
        if let Some(memory) = memory {
            out += &format!(", {} MiB of memory", memory >> 20);
        }
        out += ": not confirmed by hardware\n";
        out += &format!("  MRTD   {}\n", registers.mrtd);
        for value in &registers.rtmr0 {
            out += &format!("  RTMR0  {value}  (seen, not computed)\n");
        }
        if let (Some(rtmr1), Some(rtmr2)) = (registers.rtmr1, registers.rtmr2) {
            if registers.rtmr0.is_empty() {
                out +=
                    "  RTMR0  not computed: --rtmr0 or --event-log gives values that were seen\n";
            }
            out += &format!("  RTMR1  {rtmr1}\n  RTMR2  {rtmr2}\n");
        }
    }
    out
}

/// How registers come about.
struct Derivation<'a> {
    firmware: &'a Tdvf<'a>,
    orders: &'a [PageAddOrder],
    boots: &'a [Booted],
}

impl Derivation<'_> {
    fn words(&self) -> String {
        let mut out = String::new();
        let sections = self.firmware.sections();
        for order in self.orders {
            out += &format!(
                "MRTD, page-add order {order}: SHA-384 over one record of 128 bytes for each page added, and for each 256 bytes \
                 extended one such record and those bytes\n\
                 section  guest physical addresses           pages  operation   bytes of the image     MRTD after\n"
            );
            for step in derivation(self.firmware, *order) {
                let Some(section) = sections.get(step.section) else {
                    continue;
                };
                let bytes = match section.data.len() {
                    0 => "none".to_owned(),
                    size => format!("{:#x} - {:#x}", section.offset, section.offset + size - 1),
                };
                out += &format!(
                    "{:7}  {:#014x} - {:#014x}  {:6}  {:10}  {bytes:21}  {:.16}…\n",
                    section.kind.name(),
                    section.gpa,
                    section.memory().end - 1,
                    section.pages(),
                    step.operation.name(),
                    step.after.to_string(),
                );
            }
            out += &format!(
                "MRTD   {}  not confirmed by hardware\n\n",
                mrtd(self.firmware, *order)
            );
        }
        for (header, events) in self.boots {
            out += "RTMR1 and RTMR2: each event makes its register SHA-384 of the register and the event's digest; they begin with zeros";
            if let Some(memory) = of_memory(*header) {
                out += &format!("; {} MiB of memory", memory >> 20);
            }
            out += "\nregister  type        digest             register after     what\n";
            for (index, event) in events.iter().enumerate() {
                let so_far = events.get(..=index).unwrap_or_default();
                out += &format!(
                    "RTMR{}     {:#010x}  {:.16}…  {:.16}…  {}\n",
                    event.register,
                    event.kind,
                    event.digest.to_string(),
                    replay(so_far, event.register).to_string(),
                    event.what,
                );
            }
            for register in [1, 2] {
                let value = replay(events, register);
                out += &format!("RTMR{register}  {value}  not confirmed by hardware\n");
            }
            out += "\n";
        }
        out
    }

    fn json(&self, vmm: &str) -> Value {
        let sections = self.firmware.sections().iter().map(|section| {
            json!({
                "type": section.kind.name(),
                "gpa": format!("{:#x}", section.gpa),
                "pages": section.pages(),
                "offset": section.offset,
                "bytes": section.data.len(),
                "contents": Sha384::of(section.data),
                "measured": section.measured,
            })
        });
        let orders = self.orders.iter().map(|order| {
            let steps = derivation(self.firmware, *order).into_iter().map(|step| {
                json!({
                    "section": step.section,
                    "operation": step.operation.name(),
                    "mrtd_after": step.after,
                })
            });
            json!({
                "page_add_order": order.name(),
                "steps": steps.collect::<Vec<_>>(),
                "mrtd": mrtd(self.firmware, *order),
            })
        });
        let boots = self.boots.iter().map(|(header, events)| {
            let list = events.iter().enumerate().map(|(index, event)| {
                json!({
                    "register": event.register,
                    "type": format!("{:#x}", event.kind),
                    "digest": event.digest,
                    "register_after": replay(events.get(..=index).unwrap_or_default(), event.register),
                    "what": event.what,
                })
            });
            json!({
                "setup_header": header.name(),
                "memory": of_memory(*header),
                "events": list.collect::<Vec<_>>(),
                "rtmr1": replay(events, 1),
                "rtmr2": replay(events, 2),
            })
        });
        json!({
            "v": "touchstone/derivation/1",
            "tee": "tdx",
            "vmm": vmm,
            "confirmed": null,
            "sections": sections.collect::<Vec<_>>(),
            "orders": orders.collect::<Vec<_>>(),
            "boots": boots.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::memory;

    #[test]
    fn sizes_of_memory_have_a_unit() {
        assert_eq!(memory("512M"), Ok(512 << 20));
        assert_eq!(memory("2G"), Ok(2 << 30));
        assert_eq!(memory("1T"), Ok(1 << 40));
        for wrong in [
            "",
            "G",
            "0G",
            "2048",
            "2g",
            "+2G",
            "-2G",
            "2.5G",
            "16777216T",
        ] {
            assert!(memory(wrong).is_err(), "{wrong:?}");
        }
    }
}
