//! From root to a user without rights, for good.

use std::{fs, os::unix::process::CommandExt, process::Command};

use rustix::{
    fs::Mode,
    process::{Gid, Resource, Rlimit, Uid, setrlimit, setsid, umask},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, no_new_privs, remove_capability_from_bounding_set,
        set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};

use crate::error::{Doing, InitError, read_text};

/// Runs in the child: `enclave <uid> <program> <argument>…`. It becomes the program and does not return.
///
/// # Errors
/// Whatever keeps it from that.
pub fn run(arguments: &[String]) -> Result<(), InitError> {
    let (uid, program, arguments) = match arguments {
        [uid, program, rest @ ..] => (uid.parse().ok().filter(|uid| *uid != 0), program, rest),
        _ => (None, &String::new(), arguments),
    };
    let uid = uid.ok_or_else(|| InitError::Word {
        word: arguments.join(" "),
    })?;
    drop_rights(uid)?;
    Err(Command::new(program).args(arguments).env_clear().exec())
        .doing(|| format!("starting {program}"))
}

/// Makes this process, which has one thread, `uid`'s: no capability, none to be had again, no other group, no core
/// file, a session of its own, no descriptor that a program started from here would have but the first three.
///
/// # Errors
/// What the system refuses, or what is read back.
pub fn drop_rights(uid: u32) -> Result<(), InitError> {
    let doing = || "dropping rights".to_owned();
    inherits_nothing()?;
    setsid().doing(doing)?;
    umask(Mode::RWXG | Mode::RWXO);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).doing(doing)?;

    // While there is still the right to: what no program may ever have again.
    let of_this_kernel = |bit: u32| {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(_) => Some(capability),
            Err(_) => None,
        }
    };
    let all: Vec<_> = (0..64).map_while(of_this_kernel).collect();
    for capability in &all {
        remove_capability_from_bounding_set(*capability).doing(doing)?;
    }
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    set_thread_groups(&[]).doing(doing)?;
    set_thread_res_gid(group, group, group).doing(doing)?;
    set_thread_res_uid(user, user, user).doing(doing)?;
    clear_ambient_capability_set().doing(doing)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).doing(doing)?;
    set_no_new_privs(true).doing(doing)?;

    let bounded = all
        .iter()
        .any(|capability| capability_is_in_bounding_set(*capability) != Ok(false));
    let dropped = rustix::process::getuid() == user
        && rustix::process::getgid() == group
        && rustix::process::getgroups().doing(doing)?.is_empty()
        && capabilities(None).doing(doing)? == none
        && no_new_privs().doing(doing)?
        && !bounded
        && !all.is_empty();
    if dropped {
        Ok(())
    } else {
        Err(InitError::ReadBack {
            what: "rights after dropping them".into(),
            found: format!("{:?}", capabilities(None)),
            expected: format!("those of user {uid} alone"),
        })
    }
}

/// Whether all descriptors but 0, 1 and 2 close when a program is started.
fn inherits_nothing() -> Result<(), InitError> {
    let folder = "/proc/self/fdinfo";
    for entry in fs::read_dir(folder).doing(|| format!("reading {folder}"))? {
        let entry = entry.doing(|| format!("reading {folder}"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["0", "1", "2"].contains(&name.as_str()) {
            continue;
        }
        let about = read_text(entry.path(), 4096)?;
        let closes = about
            .lines()
            .filter_map(|line| line.strip_prefix("flags:"))
            .filter_map(|flags| i64::from_str_radix(flags.trim(), 8).ok())
            .any(|flags| flags & i64::from(libc::O_CLOEXEC) != 0);
        if !closes {
            return Err(InitError::Descriptor(name));
        }
    }
    Ok(())
}
