//! The tree of files: what is in it, and that nothing can be put there.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::{Found, Probe, expect, read};

/// The kernel's own trees, which hold no programs.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];
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
            if KERNELS.iter().any(|kernels| path == Path::new(kernels)) {
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

/// Wherever the enclave's user can put a file, nothing can be executed.
fn mounts() -> Found {
    let mut found = Vec::new();
    for line in read("/proc/self/mounts")?.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [_, place, kind, options, ..] = words[..] else {
            continue;
        };
        let file = Path::new(place).join("touchstone-probe");
        let writable = fs::write(&file, b"x").is_ok();
        if writable {
            let _ = fs::remove_file(&file);
            if !options.split(',').any(|option| option == "noexec") {
                return Err(format!(
                    "{place} ({kind}) can be written and executed: {options}"
                ));
            }
        }
        found.push(format!(
            "{place}:{kind}{}",
            if writable { ":writable" } else { "" }
        ));
    }
    Ok(found.join(" "))
}
