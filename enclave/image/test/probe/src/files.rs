//! The tree of files: what is in it, and that nothing can be put there.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::{Found, Probe, expect, read};

/// The kernel's own trees, which hold no programs.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];
/// A folder that every kernel brings along, empty and root's alone. No image puts anything there: its maker checks that.
const CLOSED: &str = "/root";
/// All programs of a test image. The release image has the first three, and the enclave under the third's name.
const PROGRAMS: [&str; 4] = [
    "/init",
    "/lib64/ld-linux-x86-64.so.2",
    "/usr/bin/enclave",
    "/usr/bin/enclave.real",
];

pub const PROBES: &[Probe] = &[
    ("programs", programs),
    ("tree", tree),
    ("root-read-only", root_read_only),
    ("mounts", mounts),
    ("nowhere-writable", nowhere_writable),
];

/// Every file of the image, with whether it can be executed and is no library.
fn files() -> Result<Vec<(PathBuf, bool)>, String> {
    let (mut folders, mut files) = (vec![PathBuf::from("/")], Vec::new());
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // What the enclave's user cannot look into cannot be started by it either, but it has to be known.
            Err(error) => return Err(format!("{}: {error}", folder.display())),
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if KERNELS.iter().any(|kernels| path == Path::new(kernels)) || path == Path::new(CLOSED)
            {
                continue;
            }
            let about = entry
                .metadata()
                .map_err(|error| format!("{}: {error}", path.display()))?;
            if about.is_dir() {
                folders.push(path);
            } else {
                files.push((path, about.permissions().mode() & 0o111 != 0));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// No shell, no ssh, no package manager: there are no programs but these.
fn programs() -> Found {
    let library = |path: &Path| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        path.starts_with("/usr/lib/") && (name.ends_with(".so") || name.contains(".so."))
    };
    let found: BTreeSet<_> = files()?
        .into_iter()
        .filter(|(path, executable)| *executable && !library(path))
        .map(|(path, _)| path.display().to_string())
        .collect();
    expect(Vec::from_iter(found).join(" "), PROGRAMS.join(" "))
}

/// All files, for whoever reads the console: it knows what was packed. Models are counted, they may be many.
fn tree() -> Found {
    let (mut names, mut models) = (Vec::new(), 0);
    for (path, _) in files()? {
        if path.starts_with("/models") {
            models += 1;
        } else {
            names.push(path.display().to_string());
        }
    }
    Ok(format!("{models} in /models; {}", names.join(" ")))
}

fn root_read_only() -> Found {
    let mounts = read("/proc/self/mounts")?;
    let last = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(1) == Some("/"))
        .unwrap_or_default();
    if !last
        .split(' ')
        .nth(3)
        .is_some_and(|options| options.split(',').any(|option| option == "ro"))
    {
        return Err(format!("mounted `{last}`"));
    }
    for path in ["/x", "/etc/x", "/usr/bin/x", "/usr/lib/x", "/models/x"] {
        match fs::write(path, b"x") {
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {}
            Err(error) => return Err(format!("{path}: {error}, expected a read-only file system")),
            Ok(()) => return Err(format!("{path} was written")),
        }
    }
    Ok(last.to_owned())
}

/// What is mounted, and how: nothing can be written but the quote entry's files, nothing can be executed but from the root.
fn mounts() -> Found {
    let mut found = Vec::new();
    for line in read("/proc/self/mounts")?.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [_, place, kind, options, ..] = words[..] else {
            return Err(line.to_owned());
        };
        let has = |option: &str| options.split(',').any(|found| found == option);
        let expected = match place {
            "/" => has("ro") && has("nodev"),
            "/proc" => has("ro") && has("nodev") && has("noexec") && options.contains("hidepid="),
            "/sys" | "/run" | "/models" => has("ro") && has("nodev") && has("noexec"),
            "/dev" => has("ro") && has("noexec"),
            // The quote entry is written by writing to its files.
            "/sys/kernel/config" => kind == "configfs" && has("nodev") && has("noexec"),
            _ => false,
        };
        if !expected || !has("nosuid") {
            return Err(line.to_owned());
        }
        found.push(format!("{place}:{kind}"));
    }
    found.sort();
    Ok(found.join(" "))
}

/// Tries to make a file in every folder there is, those of the kernel's trees too.
fn nowhere_writable() -> Found {
    let (mut folders, mut tried) = (vec![PathBuf::from("/")], 0);
    while let Some(folder) = folders.pop() {
        let file = folder.join("touchstone-probe");
        if fs::File::options()
            .write(true)
            .create_new(true)
            .open(&file)
            .is_ok()
            || fs::create_dir(&file).is_ok()
        {
            return Err(format!("{} was made", file.display()));
        }
        tried += 1;
        // Folders of processes come and go, and link to each other.
        if folder == Path::new("/proc") {
            continue;
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    Ok(format!("{tried} folders tried"))
}
