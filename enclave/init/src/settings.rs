//! `/etc/touchstone/init.toml`: what the image's maker decides, measured with the initrd.

use touchstone_settings::{ConfigError, Section};

/// Most modules, and most arguments, in one list.
const LIST_MAX: usize = 64;

/// Everything that `init.toml` says. Every key must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Kernel modules.
    pub modules: Modules,
    /// The program to start.
    pub enclave: Enclave,
    /// Name of the quote entry below `/sys/kernel/config/tsm/report`.
    pub quote_entry: String,
}

/// Files below `/usr/lib/modules`, in the order in which they are loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modules {
    /// Always.
    pub always: Vec<String>,
    /// Always; that there is no such device is no error, because a machine has one TEE at most.
    pub platform: Vec<String>,
    /// When the guest is reached by vsock.
    pub vsock: Vec<String>,
    /// When the guest is reached by TCP.
    pub net: Vec<String>,
    /// When the models lie on a volume.
    pub volume: Vec<String>,
}

/// The program to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enclave {
    /// Its path.
    pub program: String,
    /// Its arguments when the guest is reached by vsock.
    pub vsock: Vec<String>,
    /// Its arguments when the guest is reached by TCP.
    pub tcp: Vec<String>,
    /// Its user and group. Never 0.
    pub uid: u32,
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key, what was found and what is expected.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut root = Section::parse(text)?;

        let mut table = root.section("modules")?;
        let mut files = |name| {
            table.list(name, "file names such as \"vsock.ko\"", LIST_MAX, |text| {
                is_module(text).then(|| text.to_owned())
            })
        };
        let modules = Modules {
            always: files("always")?,
            platform: files("platform")?,
            vsock: files("vsock")?,
            net: files("net")?,
            volume: files("volume")?,
        };
        table.finish()?;

        let mut table = root.section("enclave")?;
        let program = table.parsed("program", "an absolute path", |text| {
            (text.starts_with('/') && is_word(text)).then(|| text.to_owned())
        })?;
        let mut arguments = |name| {
            table.list(name, "texts without control characters", LIST_MAX, |text| {
                is_word(text).then(|| text.to_owned())
            })
        };
        let (vsock, tcp) = (arguments("vsock")?, arguments("tcp")?);
        // There is no default: 0 is out of bounds, and refused.
        let uid = table.integer("uid", 0, 1..=65_000)?;
        let uid = u32::try_from(uid)
            .ok()
            .filter(|uid| *uid != 0)
            .ok_or_else(|| ConfigError::Missing {
                key: "enclave.uid".into(),
                expected: "a whole number from 1 to 65000".into(),
            })?;
        table.finish()?;

        let mut table = root.section("quote")?;
        let quote_entry = table.parsed("entry", "1 to 64 of a-z, 0-9 and -", |text| {
            is_entry(text).then(|| text.to_owned())
        })?;
        table.finish()?;
        root.finish()?;

        Ok(Self {
            modules,
            enclave: Enclave {
                program,
                vsock,
                tcp,
                uid,
            },
            quote_entry,
        })
    }
}

fn is_module(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    text.len() <= 64
        && text
            .strip_suffix(".ko")
            .is_some_and(|name| !name.is_empty() && name.bytes().all(word))
}

fn is_word(text: &str) -> bool {
    (1..=4096).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn is_entry(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[modules]
always = ["configfs.ko", "tsm.ko"]
platform = ["sev-guest.ko", "tdx-guest.ko"]
vsock = ["vmw_vsock_virtio_transport.ko"]
net = []
volume = []
[enclave]
program = "/usr/bin/enclave"
vsock = ["--config", "/etc/touchstone/enclave-vsock.toml"]
tcp = []
uid = 1000
[quote]
entry = "touchstone"
"#;

    #[test]
    fn what_is_known_is_read() {
        let settings = Settings::parse(GOOD).unwrap();
        assert_eq!(settings.modules.always, ["configfs.ko", "tsm.ko"]);
        assert_eq!(settings.enclave.uid, 1000);
        assert_eq!(settings.enclave.vsock.len(), 2);
        assert_eq!(settings.quote_entry, "touchstone");
    }

    #[test]
    fn every_key_must_be_there() {
        for line in GOOD.lines().filter(|line| line.contains(" = ")) {
            let error = Settings::parse(&GOOD.replace(line, "")).unwrap_err();
            let key = line.split_once(" =").unwrap().0;
            assert!(
                matches!(&error, ConfigError::Missing { key: found, .. } if found.ends_with(key)),
                "{line}: {error}"
            );
        }
    }

    #[test]
    fn what_is_unknown_or_out_of_bounds_is_refused() {
        for (from, to) in [
            ("\"tsm.ko\"", "\"../tsm.ko\""),
            ("\"tsm.ko\"", "\"tsm\""),
            ("\"tsm.ko\"", "\".ko\""),
            ("\"tsm.ko\"", "3"),
            ("uid = 1000", "uid = 0"),
            ("uid = 1000", "uid = 70000"),
            ("uid = 1000", "uid = \"1000\""),
            ("\"/usr/bin/enclave\"", "\"enclave\""),
            ("\"touchstone\"", "\"../touchstone\""),
            ("\"touchstone\"", "\"\""),
        ] {
            let error = Settings::parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(matches!(error, ConfigError::Value { .. }), "{to}: {error}");
        }
        for (from, to) in [
            ("[quote]", "[shell]\na = 1\n[quote]"),
            ("uid = 1000", "uid = 1000\nroot = true"),
            ("net = []", "net = []\nmore = []"),
        ] {
            let error = Settings::parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(
                matches!(error, ConfigError::Unknown { .. }),
                "{to}: {error}"
            );
        }
        let many = format!("net = [{}]", "\"a.ko\",".repeat(LIST_MAX + 1));
        assert!(Settings::parse(&GOOD.replace("net = []", &many)).is_err());
    }
}
