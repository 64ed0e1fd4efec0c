//! RTMR1 and RTMR2 of a domain whose kernel QEMU loads and OVMF starts: what firmware and kernel measure on the way, event
//! by event. Sources: EDK II, `OvmfPkg/Tcg/TdTcg2Dxe` (events, and which register they go into),
//! `OvmfPkg/Library/GenericQemuLoadImageLib` (the kernel's load options) and `OvmfPkg/QemuKernelLoaderFsDxe` (which bytes
//! are the kernel); Linux since 6.9, `drivers/firmware/efi/libstub/efi-stub-helper.c` (load options and initrd); TCG PC
//! Client Platform Firmware Profile §10.4.1 (the types of events).

use ring::digest::{Context, SHA384};

use super::kernel::{Kernel, KernelError};
use crate::hash::Sha384;

/// The longest command line, in bytes; Linux reads 2,047.
pub const MAX_CMDLINE: usize = 4096;

/// Which kernel the firmware gets: whether with what QEMU writes into its setup header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupHeader {
    /// With it: QEMU before 10.0, or OVMF before edk2-stable202502.
    Patched {
        /// The guest's memory in bytes: where the initrd would be depends on it.
        memory: u64,
    },
    /// As it is in its file: QEMU since 10.0 (`etc/boot/kernel`) with OVMF since edk2-stable202502.
    AsIs,
}

impl SetupHeader {
    /// As it is named in arguments and manifests.
    pub fn name(self) -> &'static str {
        match self {
            SetupHeader::Patched { .. } => "patched",
            SetupHeader::AsIs => "as-is",
        }
    }
}

/// Which firmware: the first release of EDK II that measures a boot like it. Older firmware than these measures no separator
/// into RTMR1, and is not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edk2 {
    /// edk2-stable202411 to 202505: `initrd=initrd` goes behind the command line.
    Stable202411,
    /// edk2-stable202508 and later: it goes before it.
    Stable202508,
}

impl Edk2 {
    /// As it is named in arguments.
    pub fn name(self) -> &'static str {
        match self {
            Edk2::Stable202411 => "202411",
            Edk2::Stable202508 => "202508",
        }
    }

    /// The kernel's load options: UTF-16, little-endian, with the NUL that ends them.
    fn load_options(self, cmdline: &str) -> Vec<u8> {
        let text = match self {
            Edk2::Stable202411 => format!("{cmdline} initrd=initrd\0"),
            Edk2::Stable202508 => format!("initrd=initrd {cmdline}\0"),
        };
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }
}

/// Why it cannot be said what a boot measures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// The kernel is none, or does not fit.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Without an initrd other events are measured.
    #[error("initrd: it is empty")]
    NoInitrd,
    /// A command line that is longer than any kernel reads.
    #[error("command line: {found} bytes, more than {MAX_CMDLINE}")]
    CmdlineLength {
        /// How long it is, in bytes.
        found: usize,
    },
    /// A byte that is not printable ASCII: firmware would not hand it on as it is.
    #[error("command line: byte {found:#04x} at {offset}: not printable ASCII")]
    CmdlineByte {
        /// Where.
        offset: usize,
        /// Which.
        found: u8,
    },
    /// QEMU reads `vga=` itself and writes it into the setup header.
    #[error("command line: \"vga=\" changes the kernel's setup header, which is not computed here")]
    Vga,
}

/// One event: something that extended a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which RTMR, 1 or 2.
    pub register: u8,
    /// The event's type, by TCG's number.
    pub kind: u32,
    /// What was measured, in words.
    pub what: String,
    /// What the register was extended with.
    pub digest: Sha384,
}

/// TCG's numbers of the types of events: EV_SEPARATOR, EV_EVENT_TAG, EV_EFI_BOOT_SERVICES_APPLICATION, EV_EFI_ACTION.
const SEPARATOR: u32 = 4;
const EVENT_TAG: u32 = 6;
const APPLICATION: u32 = 0x8000_0003;
const ACTION: u32 = 0x8000_0007;

/// A kernel, an initrd and a command line, as they are given to QEMU.
#[derive(Clone, Debug)]
pub struct Boot<'a> {
    kernel: Kernel<'a>,
    initrd_size: u64,
    initrd: Sha384,
    cmdline: &'a str,
}

impl<'a> Boot<'a> {
    /// Reads them.
    ///
    /// # Errors
    /// [`BootError`]: one of them cannot be measured.
    pub fn new(kernel: &'a [u8], initrd: &[u8], cmdline: &'a str) -> Result<Boot<'a>, BootError> {
        if initrd.is_empty() {
            return Err(BootError::NoInitrd);
        }
        let found = cmdline.len();
        if found > MAX_CMDLINE {
            return Err(BootError::CmdlineLength { found });
        }
        let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if let Some((offset, found)) = cmdline.bytes().enumerate().find(|(_, b)| !printable(*b)) {
            return Err(BootError::CmdlineByte { offset, found });
        }
        Ok(Boot {
            kernel: Kernel::parse(kernel)?,
            initrd_size: initrd.len() as u64,
            initrd: Sha384::of(initrd),
            cmdline,
        })
    }

    /// What is measured into RTMR1 and RTMR2, in the order in which it happens.
    ///
    /// # Errors
    /// [`BootError`]: QEMU would not start a guest with this, or would write more into the setup header than is known.
    pub fn events(&self, header: SetupHeader, edk2: Edk2) -> Result<Vec<Event>, BootError> {
        let kernel = match header {
            SetupHeader::AsIs => self.kernel.digest()?,
            SetupHeader::Patched { .. } if self.cmdline.contains("vga=") => {
                return Err(BootError::Vga);
            }
            SetupHeader::Patched { memory } => {
                self.kernel.patched_digest(self.initrd_size, memory)?
            }
        };
        let action = |text: &str| Event {
            register: 1,
            kind: ACTION,
            what: text.to_owned(),
            digest: Sha384::of(text.as_bytes()),
        };
        Ok(vec![
            Event {
                register: 1,
                kind: APPLICATION,
                what: format!(
                    "kernel, Authenticode digest (setup header {})",
                    header.name()
                ),
                digest: kernel,
            },
            action("Calling EFI Application from Boot Option"),
            Event {
                register: 1,
                kind: SEPARATOR,
                what: "separator: four zeros".to_owned(),
                digest: Sha384::of(&[0; 4]),
            },
            Event {
                register: 2,
                kind: EVENT_TAG,
                what: match edk2 {
                    Edk2::Stable202411 => "command line, then initrd=initrd, in UTF-16 with NUL",
                    Edk2::Stable202508 => "initrd=initrd, then command line, in UTF-16 with NUL",
                }
                .to_owned(),
                digest: Sha384::of(&edk2.load_options(self.cmdline)),
            },
            Event {
                register: 2,
                kind: EVENT_TAG,
                what: format!("initrd, {} bytes", self.initrd_size),
                digest: self.initrd,
            },
            action("Exit Boot Services Invocation"),
            action("Exit Boot Services Returned with Success"),
        ])
    }
}

/// What a register comes to: it begins with zeros, and each event makes it the SHA-384 of itself and the event's digest.
pub fn replay(events: &[Event], register: u8) -> Sha384 {
    let events = events.iter().filter(|event| event.register == register);
    events.fold(Sha384::ZERO, |value, event| {
        let mut context = Context::new(&SHA384);
        context.update(&value.0);
        context.update(&event.digest.0);
        Sha384::finish(context)
    })
}
