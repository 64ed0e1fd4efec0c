//! The kernel's command line, which is measured: every word is known, or the guest does not start.
//!
//! A word that nobody reads today may be read by tomorrow's kernel, and a word that is missing leaves the kernel with
//! a default that nobody chose. So what may stand there is listed here, and nothing else.

use thiserror::Error;

use crate::{network::Ipv4Config, volume::Verity};

/// Longest command line that is read: twice what the kernel takes on x86.
const BYTES_MAX: usize = 4096;

/// Words without which the guest does not start: an error ends it and nothing waits for a person, and the kernel's
/// randomness comes from the CPU alone.
const REQUIRED: [&str; 3] = [
    "panic=-1",
    "random.trust_cpu=on",
    "random.trust_bootloader=off",
];

/// Words that may stand there. `initrd=initrd` is OVMF's, under TDX; the others make the kernel say less, or allow less.
const ALLOWED: [&str; 8] = [
    "quiet",
    "initrd=initrd",
    "oops=panic",
    "lockdown=confidentiality",
    "ia32_emulation=off",
    "vsyscall=none",
    "init_on_alloc=1",
    "slab_nomerge",
];

/// What the command line says about this guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// How the guest is reached.
    pub network: Network,
    /// The volume with the models; none: they lie in the initrd.
    pub models: Option<Verity>,
}

/// How the guest is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// vsock alone; no driver of a network card is loaded.
    Vsock,
    /// TCP at an address that is measured.
    Static(Ipv4Config),
    /// TCP at an address that a DHCP server gives.
    Dhcp,
}

/// A command line that the guest does not start with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandLineError {
    /// Too long, or not plain ASCII.
    #[error(
        "the kernel command line is {bytes} bytes long or not printable ASCII; expected at most {BYTES_MAX} bytes of it"
    )]
    Text {
        /// How long it is.
        bytes: usize,
    },
    /// A word that is not known.
    #[error("the kernel command line has the unknown word `{word}`")]
    Unknown {
        /// The word.
        word: String,
    },
    /// A key twice.
    #[error("the kernel command line has the key `{key}` twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// A word that must be there.
    #[error("the kernel command line lacks the word `{word}`")]
    Missing {
        /// The word.
        word: &'static str,
    },
    /// A value of a known key that does not stand.
    #[error("the kernel command line's key `{key}`: found `{value}`, expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was found.
        value: String,
        /// What is expected.
        expected: &'static str,
    },
}

impl CommandLine {
    /// Reads `/proc/cmdline`.
    ///
    /// # Errors
    /// [`CommandLineError`], for the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, CommandLineError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let plain = text.bytes().all(|b| matches!(b, b' '..=b'~'));
        if text.len() > BYTES_MAX || !plain {
            return Err(CommandLineError::Text { bytes: text.len() });
        }
        let mut seen: Vec<&str> = Vec::new();
        let (mut network, mut models) = (Network::Vsock, None);
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            // The kernel may have several consoles.
            if key != "console" && seen.contains(&key) {
                return Err(CommandLineError::Twice { key: key.into() });
            }
            seen.push(key);
            let wrong = |key, expected| CommandLineError::Value {
                key,
                value: value.into(),
                expected,
            };
            match key {
                "touchstone.net" => {
                    network = read_network(value)
                        .ok_or_else(|| wrong("touchstone.net", Network::EXPECTED))?;
                }
                "touchstone.models" => {
                    let volume = Verity::parse(value);
                    models =
                        Some(volume.ok_or_else(|| wrong("touchstone.models", Verity::EXPECTED))?);
                }
                "console" if is_console(value) => {}
                "loglevel" if matches!(value.as_bytes(), [b'0'..=b'8']) => {}
                _ if REQUIRED.contains(&word) || ALLOWED.contains(&word) => {}
                _ => return Err(CommandLineError::Unknown { word: word.into() }),
            }
        }
        // A key stands once, and only with the value that is listed.
        for word in REQUIRED {
            let key = word.split_once('=').map_or(word, |(key, _)| key);
            if !seen.contains(&key) {
                return Err(CommandLineError::Missing { word });
            }
        }
        Ok(Self { network, models })
    }
}

impl Network {
    const EXPECTED: &str =
        "`dhcp` or `<ipv4>/<prefix>,<gateway>`, both addresses of single machines";
}

fn read_network(value: &str) -> Option<Network> {
    match value {
        "dhcp" => Some(Network::Dhcp),
        address => Ipv4Config::parse(address).map(Network::Static),
    }
}

/// `ttyS0`, `hvc0`, `tty0`, with options such as `ttyS0,115200n8`.
fn is_console(value: &str) -> bool {
    (1..=32).contains(&value.len())
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "console=ttyS0,115200n8 console=hvc0 panic=-1 random.trust_cpu=on random.trust_bootloader=off quiet loglevel=4 initrd=initrd\n";

    #[test]
    fn what_is_known_is_read() {
        let closed = CommandLine {
            network: Network::Vsock,
            models: None,
        };
        assert_eq!(CommandLine::parse(GOOD), Ok(closed.clone()));
        assert_eq!(
            CommandLine::parse(&format!("  {} ", GOOD.trim())),
            Ok(closed)
        );
        let line = format!(
            "{} touchstone.net=10.0.2.15/24,10.0.2.2 touchstone.models={},00ff,7",
            GOOD.trim(),
            "ab".repeat(32)
        );
        let read = CommandLine::parse(&line).unwrap();
        assert_eq!(
            read.network,
            Network::Static(Ipv4Config::parse("10.0.2.15/24,10.0.2.2").unwrap())
        );
        assert_eq!(read.models.unwrap().data_blocks, 7);
        let line = GOOD.replace("quiet", "touchstone.net=dhcp");
        assert_eq!(CommandLine::parse(&line).unwrap().network, Network::Dhcp);
    }

    #[test]
    fn unknown_words_are_refused() {
        for word in [
            "init=/bin/sh",
            "rdinit=/bin/sh",
            "single",
            "-",
            "--",
            "systemd.debug-shell",
            "panic=0",
            "QUIET",
            "quiet=1",
            "sysctl.kernel.kptr_restrict=0",
            "module.sig_enforce=0",
            "touchstone.net2=dhcp",
            "touchstone.shell=1",
            "console=",
            "console=ttyS0\"",
            "loglevel=9",
            "loglevel=44",
            "initrd=other",
            "lockdown=integrity",
            "=",
        ] {
            let key = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
            let others = GOOD.split_whitespace().filter(|w| key(w) != key(word));
            let line = others.chain([word]).collect::<Vec<_>>().join(" ");
            assert_eq!(
                CommandLine::parse(&line),
                Err(CommandLineError::Unknown { word: word.into() })
            );
        }
    }

    #[test]
    fn required_words_must_stand_there_as_they_are() {
        for word in REQUIRED {
            assert_eq!(
                CommandLine::parse(&GOOD.replace(word, "")),
                Err(CommandLineError::Missing { word })
            );
            // Whatever stands first or last, no other value does.
            for line in [
                format!("{word}x {GOOD}"),
                format!("{} {word}x", GOOD.trim()),
            ] {
                assert!(CommandLine::parse(&line).is_err());
            }
        }
        assert_eq!(
            CommandLine::parse(&format!("panic=-1 {GOOD}")),
            Err(CommandLineError::Twice {
                key: "panic".into()
            })
        );
    }

    #[test]
    fn hostile_text_is_refused() {
        let long = format!("{}{}", GOOD.trim(), " ".repeat(BYTES_MAX));
        for text in [
            long.as_str(),
            "panic=-1\tquiet",
            "panic=-1\nquiet",
            "é",
            "\0",
        ] {
            assert_eq!(
                CommandLine::parse(text),
                Err(CommandLineError::Text { bytes: text.len() })
            );
        }
        for value in ["", "dhcp,", "DHCP", "10.0.2.15", "10.0.2.15/24", "any"] {
            let line = GOOD.replace("quiet", &format!("touchstone.net={value}"));
            assert!(matches!(
                CommandLine::parse(&line),
                Err(CommandLineError::Value {
                    key: "touchstone.net",
                    ..
                })
            ));
        }
        let line = GOOD.replace("quiet", "touchstone.models=00,00,1");
        assert!(matches!(
            CommandLine::parse(&line),
            Err(CommandLineError::Value {
                key: "touchstone.models",
                ..
            })
        ));
    }
}
