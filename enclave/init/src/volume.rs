//! The model volume: erofs under dm-verity, whose root hash the measured command line names.
//!
//! On the disk: `data_blocks` blocks of 4096 bytes of erofs, and directly behind them the hash tree as
//! `veritysetup format --no-superblock --hash-offset=<data_blocks × 4096>` makes it: format 1, SHA-256, blocks of 4096.
//! Nothing on the disk says so: every parameter is on the command line. A block that does not match is an I/O error for
//! whoever reads it, at any time.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, mount};

use crate::{
    error::{Doing, InitError, read_text},
    sys::{DM_BUFFER, DM_HEADER, DmCommand, dm},
};

/// Size of a block, in bytes.
const BLOCK: u64 = 4096;
/// The kernel's unit for sizes of devices, in bytes.
const SECTOR: u64 = 512;
/// Most data blocks: 16 TiB.
const BLOCKS_MAX: u64 = 1 << 32;
/// The partition's name, on disks that have partitions.
const PARTITION: &str = "touchstone-models";
/// Longest time that the disk may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);

/// What dm-verity is told about the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// Root of the hash tree, 64 lower-case hex digits.
    pub root: String,
    /// Salt, 2 to 512 lower-case hex digits; `-` for none.
    pub salt: String,
    /// Blocks of data, of 4096 bytes each.
    pub data_blocks: u64,
}

impl Verity {
    /// What [`parse`](Self::parse) takes, in words.
    pub const EXPECTED: &str = "`<root hash>,<salt>,<data blocks>`: 64 lower-case hex digits; 2 to 512 of them, or `-` for no salt; 1 to 4294967296";

    /// Reads `<root hash>,<salt>,<data blocks>`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let (root, salt, blocks) = (parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str| {
            text.len().is_multiple_of(2)
                && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let salted = salt == "-" || ((2..=512).contains(&salt.len()) && hex(salt));
        let digits = (1..=10).contains(&blocks.len())
            && !blocks.starts_with('0')
            && blocks.bytes().all(|b| b.is_ascii_digit());
        if parts.next().is_some() || root.len() != 64 || !hex(root) || !salted || !digits {
            return None;
        }
        Some(Self {
            root: root.into(),
            salt: salt.into(),
            data_blocks: blocks.parse().ok().filter(|n| *n <= BLOCKS_MAX)?,
        })
    }

    /// The table's only line, without start and length. The tree lies behind the data, on the same device.
    fn table(&self, device: &str) -> String {
        format!(
            "1 {device} {device} {BLOCK} {BLOCK} {0} {0} sha256 {1} {2}",
            self.data_blocks, self.root, self.salt
        )
    }
}

/// Mounts the volume read-only at `/models`; gives the device that it is on.
///
/// # Errors
/// No such device, or several; or the volume is not the named one or not intact where the file system begins.
pub fn mount_models(verity: &Verity) -> Result<String, InitError> {
    let device = find()?;
    let verified = open(verity, &device)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(verified.as_str(), "/models", "erofs", flags, None).map_err(|source| {
        InitError::Volume {
            device: device.clone(),
            source: source.into(),
        }
    })?;
    Ok(device)
}

/// Makes the verity device, read-only; gives its path.
fn open(verity: &Verity, device: &str) -> Result<String, InitError> {
    let path = "/dev/mapper/control";
    let control = File::options()
        .read(true)
        .write(true)
        .open(path)
        .doing(|| format!("opening {path}"))?;
    // Refused is, for one, a device that is too short.
    let call = |command, mut request: Box<[u8; DM_BUFFER]>| {
        dm(control.as_fd(), command, &mut request)
            .map(|()| request)
            .map_err(|source| InitError::Volume {
                device: device.into(),
                source: source.into(),
            })
    };
    let created = call(DmCommand::Create, request(None))?;
    let sectors = verity.data_blocks.saturating_mul(BLOCK / SECTOR);
    call(
        DmCommand::Load,
        request(Some((sectors, &verity.table(device)))),
    )?;
    call(DmCommand::Resume, request(None))?;
    Ok(format!("/dev/dm-{}", minor(&created)))
}

/// A `struct dm_ioctl` about our one device, and the table's line behind it: a `struct dm_target_spec` and its parameters.
fn request(table: Option<(u64, &str)>) -> Box<[u8; DM_BUFFER]> {
    const VERSION: u32 = 4;
    const READ_ONLY: u32 = 1;
    let mut bytes = Vec::with_capacity(DM_BUFFER);
    let mut put = |at: usize, value: &[u8]| {
        if bytes.len() < at {
            bytes.resize(at, 0);
        }
        bytes.extend_from_slice(value);
    };
    put(0, &VERSION.to_ne_bytes());
    put(16, &(DM_HEADER as u32).to_ne_bytes()); // data_start
    put(20, &u32::from(table.is_some()).to_ne_bytes()); // target_count
    put(28, &READ_ONLY.to_ne_bytes()); // flags
    put(48, b"touchstone-models"); // name
    if let Some((sectors, parameters)) = table {
        put(DM_HEADER + 8, &sectors.to_ne_bytes()); // from sector 0, so many
        put(DM_HEADER + 24, b"verity");
        put(DM_HEADER + 40, parameters.as_bytes());
    }
    let mut buffer = Box::new([0; DM_BUFFER]);
    for (to, from) in buffer.iter_mut().zip(bytes) {
        *to = from;
    }
    buffer
}

/// The minor number of the device that an answer is about (`dev`, as the kernel packs it).
fn minor(answer: &[u8; DM_BUFFER]) -> u64 {
    let mut packed = [0; 8];
    for (to, from) in packed.iter_mut().zip(answer.iter().skip(40)) {
        *to = *from;
    }
    let packed = u64::from_ne_bytes(packed);
    (packed & 0xff) | ((packed >> 12) & 0xfff00)
}

/// Waits for the disk.
fn find() -> Result<String, InitError> {
    let class = "/sys/class/block";
    let begun = Instant::now();
    loop {
        let mut devices = Vec::new();
        for entry in fs::read_dir(class).doing(|| format!("reading {class}"))? {
            let entry = entry.doing(|| format!("reading {class}"))?;
            let about = read_text(entry.path().join("uevent"), 4096)?;
            devices.push((entry.file_name().to_string_lossy().into_owned(), about));
        }
        match choose(&devices) {
            Ok(name) => return Ok(format!("/dev/{name}")),
            Err(error) if begun.elapsed() >= PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Out of block devices and what the kernel says about them: the partition with our name, else the only virtio disk.
/// The host decides what is there; which volume it is, the root hash decides.
fn choose(devices: &[(String, String)]) -> Result<String, InitError> {
    let named = |(name, about): &&(String, String)| {
        plain(name)
            && about
                .lines()
                .any(|line| line.strip_prefix("PARTNAME=") == Some(PARTITION))
    };
    let disk = |(name, about): &&(String, String)| {
        plain(name) && name.starts_with("vd") && about.lines().any(|line| line == "DEVTYPE=disk")
    };
    let names = |found: Vec<&(String, String)>| -> Vec<String> {
        found.into_iter().map(|(name, _)| name.clone()).collect()
    };
    let mut found = names(devices.iter().filter(named).collect());
    if found.is_empty() {
        found = names(devices.iter().filter(disk).collect());
    }
    found.sort_unstable();
    match found.as_slice() {
        [name] => Ok(name.clone()),
        several => Err(InitError::NotOne {
            what: "a partition named touchstone-models, or a virtio disk",
            found: match several {
                [] => "none".into(),
                names => names.join(", "),
            },
        }),
    }
}

fn plain(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_strictly() {
        let root = "0123456789abcdef".repeat(4);
        let good = format!("{root},00ff,4096");
        let read = Verity::parse(&good).unwrap();
        assert_eq!(
            read.table("/dev/vda"),
            format!("1 /dev/vda /dev/vda 4096 4096 4096 4096 sha256 {root} 00ff")
        );
        assert!(Verity::parse(&format!("{root},-,1")).is_some());
        assert!(Verity::parse(&format!("{root},{},4294967296", "ab".repeat(256))).is_some());
        for bad in [
            String::new(),
            root.clone(),
            format!("{root},00ff"),
            format!("{root},00ff,"),
            format!("{root},00ff,0"),
            format!("{root},00ff,01"),
            format!("{root},00ff,+1"),
            format!("{root},00ff,-1"),
            format!("{root},00ff,4294967297"),
            format!("{root},00ff,99999999999999999999999"),
            format!("{root},00ff,1,1"),
            format!("{root},,1"),
            format!("{root},0,1"),
            format!("{root},{},1", "ab".repeat(257)),
            format!("{},00ff,1", root.to_uppercase()),
            format!("{},00ff,1", root.split_at(62).0),
            format!("{root}00,00ff,1"),
            format!("{root},00 1 ignore_corruption,1"),
        ] {
            assert_eq!(Verity::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn requests_are_laid_out_as_the_kernel_reads_them() {
        let bytes = request(Some((8, "1 a b")));
        assert_eq!(bytes.get(..4), Some(&4u32.to_ne_bytes()[..]));
        assert_eq!(bytes.get(16..24), Some(&[56, 1, 0, 0, 1, 0, 0, 0][..]));
        assert_eq!(bytes.get(28), Some(&1));
        assert_eq!(bytes.get(48..66), Some(&b"touchstone-models\0"[..]));
        assert_eq!(
            bytes.get(312..328),
            Some(&[0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0][..])
        );
        assert_eq!(bytes.get(336..343), Some(&b"verity\0"[..]));
        assert_eq!(bytes.get(352..358), Some(&b"1 a b\0"[..]));
        assert_eq!(request(None).get(20), Some(&0));
        let mut answer = [0; DM_BUFFER];
        for (to, from) in answer
            .iter_mut()
            .skip(40)
            .zip(((253u64 << 8) | 3).to_ne_bytes())
        {
            *to = from;
        }
        assert_eq!(minor(&answer), 3);
    }

    #[test]
    fn the_volume_is_the_named_partition_or_the_only_virtio_disk() {
        let device = |name: &str, about: &str| (name.to_owned(), about.to_owned());
        let disk = "MAJOR=254\nDEVNAME=vda\nDEVTYPE=disk\n";
        let part = "DEVNAME=x\nDEVTYPE=partition\nPARTN=2\nPARTNAME=touchstone-models\n";
        let other = "DEVNAME=x\nDEVTYPE=partition\nPARTN=1\nPARTNAME=not-touchstone-models\n";
        assert_eq!(choose(&[device("vda", disk)]).unwrap(), "vda");
        let disks = [
            device("vda", disk),
            device("vda1", other),
            device("nvme0n1p2", part),
        ];
        assert_eq!(choose(&disks).unwrap(), "nvme0n1p2");
        for (devices, found) in [
            (vec![], "none"),
            (vec![device("vda", disk), device("vdb", disk)], "vda, vdb"),
            (
                vec![device("vda1", part), device("vda2", part)],
                "vda1, vda2",
            ),
            (vec![device("nvme0n1", disk)], "none"),
            (vec![device("vd/../x", disk)], "none"),
        ] {
            let error = choose(&devices).unwrap_err();
            assert!(
                matches!(&error, InitError::NotOne { found: names, .. } if names == found),
                "{error}"
            );
        }
    }
}
