//! The order in which the guest starts, and its end.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    env,
    fs::File,
    io,
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    fs::Mode,
    mount::{MountFlags, mount},
    process::{Pid, Resource, Rlimit, Signal, WaitOptions, kill_process, setrlimit, umask, wait},
    rand::{GetRandomFlags, getrandom},
    system::{RebootCommand, finit_module, reboot},
    thread::{CapabilitySet, CapabilitySets, set_capabilities},
};
use signal_hook::{
    consts::{SIGCHLD, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    close,
    cmdline::{CommandLine, Network},
    error::{Doing, InitError, read_text},
    network, quote, say,
    settings::Settings,
    volume,
};

/// What the image's maker decides.
const SETTINGS: &str = "/etc/touchstone/init.toml";
/// Where modules lie.
const MODULES: &str = "/usr/lib/modules";
/// Most files that the enclave may open: its connections.
const FILES: u64 = 65_536;
/// Variables that the kernel gives to every init, whatever its command line is.
const KERNEL_VARIABLES: [(&str, &str); 2] = [("HOME", "/"), ("TERM", "linux")];

/// Starts the guest and stays until the enclave ends.
///
/// # Errors
/// Why the guest does not start, or why it ends.
pub fn run() -> Result<Infallible, InitError> {
    umask(Mode::WGRP | Mode::WOTH);
    mount_kernel_file_systems()?;
    let line = CommandLine::parse(&read_text("/proc/cmdline", 64 << 10)?)?;
    nothing_passed_on()?;
    let settings =
        Settings::parse(&read_text(SETTINGS, 64 << 10)?).map_err(|source| InitError::Settings {
            path: SETTINGS,
            source,
        })?;
    randomness_from_the_cpu()?;
    // Ctrl-alt-del is a signal and no reset.
    reboot(RebootCommand::CadOff).doing(|| "switching ctrl-alt-del off".into())?;
    load_modules(&settings, &line)?;
    mount_plain("configfs", "/sys/kernel/config", None)?;

    if let Some(verity) = &line.models {
        let device = volume::mount_models(verity)?;
        say(&format!(
            "models: {} blocks of {device}, verified against {}",
            verity.data_blocks, verity.root
        ));
    }
    close::no_ipv6()?;
    match network::set_up(line.network)? {
        Some(config) => say(&format!("network: {config}")),
        None => say("network: vsock alone"),
    }
    let uid = settings.enclave.uid;
    let provider = quote::make_entry(&settings.quote_entry, uid)?;
    say(&format!("quotes: {provider}"));
    // Anywhere else the table is the host's invention, and points where the host likes.
    if provider == quote::TDX
        && let Some(bytes) = quote::copy_event_log(uid)?
    {
        say(&format!("event log: {bytes} bytes"));
    }
    close::kernel()?;
    close::file_systems()?;

    let arguments = match line.network {
        Network::Vsock => &settings.enclave.vsock,
        Network::Static(_) | Network::Dhcp => &settings.enclave.tcp,
    };
    // Before there is a child: its end is not missed.
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGCHLD]).doing(|| "waiting for signals".into())?;
    let enclave = start(&settings.enclave.program, uid, arguments)?;
    keep_little()?;
    say(&format!(
        "started {} as user {uid}",
        settings.enclave.program
    ));
    loop {
        for signal in signals.wait() {
            if signal == SIGCHLD {
                if let Some(ended) = reap(enclave)? {
                    return Err(InitError::Ended(ended));
                }
            } else {
                say("told to end: the enclave drains");
                // It may have ended by itself; then SIGCHLD says so.
                let _ = kill_process(enclave, Signal::TERM);
            }
        }
    }
}

fn mount_kernel_file_systems() -> Result<(), InitError> {
    // hidepid: processes of other users are not there.
    mount_plain("proc", "/proc", Some(c"hidepid=invisible"))?;
    mount_plain("sysfs", "/sys", None)?;
    mount_plain("tmpfs", "/run", Some(c"mode=0755,size=4m"))?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devtmpfs", "/dev", "devtmpfs", flags, c"mode=0755").doing(|| "mounting /dev".into())
}

fn mount_plain(
    kind: &str,
    folder: &str,
    options: Option<&std::ffi::CStr>,
) -> Result<(), InitError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(kind, folder, kind, flags, options).doing(|| format!("mounting {folder}"))
}

/// The kernel passes words of its command line that it does not know on to init.
fn nothing_passed_on() -> Result<(), InitError> {
    if let Some(word) = env::args_os().nth(1) {
        let word = word.to_string_lossy().into_owned();
        return Err(InitError::Word { word });
    }
    let known = |(name, value): &(std::ffi::OsString, std::ffi::OsString)| {
        KERNEL_VARIABLES
            .iter()
            .any(|known| name == known.0 && value == known.1)
    };
    match env::vars_os().find(|variable| !known(variable)) {
        Some((name, value)) => Err(InitError::Word {
            word: format!("{}={}", name.to_string_lossy(), value.to_string_lossy()),
        }),
        None => Ok(()),
    }
}

/// What the host offers as randomness is not taken: the CPU must have its own, and the kernel must be seeded by it.
fn randomness_from_the_cpu() -> Result<(), InitError> {
    let about = read_text("/proc/cpuinfo", 16 << 20)?;
    if !has_rdrand(&about) {
        return Err(InitError::NoCpuRandomness);
    }
    match getrandom(&mut [0u8; 1], GetRandomFlags::NONBLOCK) {
        Ok(1) => Ok(()),
        _ => Err(InitError::NotSeeded),
    }
}

/// Whether every CPU has RDRAND, by `/proc/cpuinfo`.
fn has_rdrand(about: &str) -> bool {
    let mut flags = about
        .lines()
        .filter(|line| line.starts_with("flags\t"))
        .peekable();
    flags.peek().is_some() && flags.all(|line| line.split_whitespace().any(|f| f == "rdrand"))
}

/// Loads what this guest needs, each module once.
fn load_modules(settings: &Settings, line: &CommandLine) -> Result<(), InitError> {
    let modules = &settings.modules;
    let none = Vec::new();
    let (vsock, net) = match line.network {
        Network::Vsock => (&modules.vsock, &none),
        Network::Static(_) | Network::Dhcp => (&none, &modules.net),
    };
    let volume = line.models.as_ref().map_or(&none, |_| &modules.volume);
    let mut loaded = BTreeSet::new();
    for name in [&modules.always, vsock, net, volume].into_iter().flatten() {
        if loaded.insert(name) {
            load(name).doing(|| format!("loading module {name}"))?;
        }
    }
    for name in &modules.platform {
        if loaded.insert(name) {
            match load(name) {
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                done => done.doing(|| format!("loading module {name}"))?,
            }
        }
    }
    Ok(())
}

fn load(name: &str) -> io::Result<()> {
    let file = File::open(Path::new(MODULES).join(name))?;
    Ok(finit_module(&file, c"", 0)?)
}

/// Starts the enclave by a child that first drops its rights; gives its process.
fn start(program: &str, uid: u32, arguments: &[String]) -> Result<Pid, InitError> {
    let files = Rlimit {
        current: Some(FILES),
        maximum: Some(FILES),
    };
    setrlimit(Resource::Nofile, files).doing(|| "allowing many open files".into())?;
    let child = Command::new("/proc/self/exe")
        .arg("enclave")
        .arg(uid.to_string())
        .arg(program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .spawn()
        .doing(|| format!("starting {program}"))?;
    // Reaped below, with whatever else ends. Dropping the handle does nothing to the process.
    Ok(Pid::from_child(&child))
}

/// From here on this process reaps, passes a signal on and powers off; it keeps the rights to that and no other.
fn keep_little() -> Result<(), InitError> {
    let rights = CapabilitySet::KILL | CapabilitySet::SYS_BOOT;
    let sets = CapabilitySets {
        effective: rights,
        permitted: rights,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).doing(|| "dropping rights".into())
}

/// Takes the ends of all children that have ended; says how the enclave ended, if it has.
fn reap(enclave: Pid) -> Result<Option<String>, InitError> {
    let mut end = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == enclave => {
                end = Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (None, Some(signal)) => format!("signal {signal}"),
                    (None, None) => format!("status {:#x}", status.as_raw()),
                });
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(end),
            Err(error) => return Err(error).doing(|| "waiting for the enclave".into()),
        }
    }
}

/// Says why and powers off. Should that be refused, the kernel panics when this process ends, and `panic=-1` resets.
pub fn power_off(why: &str) -> ! {
    say(&format!("powering off: {why}"));
    // The console is slow and buffered.
    let _ = rustix::termios::tcdrain(rustix::stdio::stderr());
    rustix::fs::sync();
    let refused = reboot(RebootCommand::PowerOff);
    say(&format!("cannot power off: {refused:?}"));
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_must_have_rdrand() {
        let with = "processor\t: 0\nflags\t\t: fpu rdrand vme\n";
        let without = "processor\t: 1\nflags\t\t: fpu rdrandom vme\nvmx flags\t: rdrand\n";
        assert!(has_rdrand(with));
        assert!(has_rdrand(&with.repeat(2)));
        for about in ["", without, &format!("{with}{without}"), "flags: rdrand"] {
            assert!(!has_rdrand(about), "{about:?}");
        }
    }
}
