//! The DHCP client: a process of its own, without rights, that reads what strangers send.
//!
//! PID 1 gives it a socket as standard input; it has no other way to anywhere. It writes one line to standard output:
//! `<ipv4>/<prefix>,<gateway>[,<mtu>]`, which PID 1 reads as it would the command line. The lease is not renewed:
//! clouds give a VM its address for life.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, SendFlags, recv, send},
    stdio::stdin,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use super::{
    Ipv4Config,
    packet::{Client, FRAME_MAX, Reply, parse_mac},
};
use crate::{
    become_user,
    error::{Doing, InitError},
};

/// The client's user. Nothing else has it, and nothing belongs to it.
pub const UID: u32 = 65_533;
/// Longest time that is asked for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest time for one answer; the first is given half a second, each next one twice the last.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// Runs in the child: `dhcp <mac> <transaction>`.
///
/// # Errors
/// Whatever keeps it from an address.
pub fn run(arguments: &[String]) -> Result<(), InitError> {
    let client = match arguments {
        [mac, transaction] => parse_mac(mac)
            .zip(transaction.parse().ok())
            .map(|(mac, transaction)| Client { mac, transaction }),
        _ => None,
    };
    let client = client.ok_or_else(|| InitError::Word {
        word: arguments.join(" "),
    })?;
    become_user::drop_rights(UID)?;
    confine()?;
    let config = converse(client)?;
    writeln!(io::stdout(), "{config}").doing(|| "writing the answer".into())
}

/// From here on: the socket, standard output, the clock and memory. Anything else ends the process.
fn confine() -> Result<(), InitError> {
    let calls = [
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_write,
        libc::SYS_clock_gettime,
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let confine = || -> Result<(), Box<dyn std::error::Error>> {
        let filter: BpfProgram = SeccompFilter::new(
            rules,
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            TargetArch::x86_64,
        )?
        .try_into()?;
        Ok(apply_filter(&filter)?)
    };
    confine()
        .map_err(|error| io::Error::other(error.to_string()))
        .doing(|| "confining the DHCP client".into())
}

/// Asks until an address is given.
fn converse(client: Client) -> Result<Ipv4Config, InitError> {
    let begun = Instant::now();
    let mut wait = Duration::from_millis(500);
    while begun.elapsed() < PATIENCE {
        if let Some(Reply::Offer { address, server }) = exchange(client, None, wait)?
            && let Some(Reply::Given(config)) = exchange(client, Some((address, server)), wait)?
        {
            return Ok(config);
        }
        wait = (wait * 2).min(WAIT_MAX);
    }
    Err(InitError::Dhcp("no server answered".into()))
}

/// Sends one message and waits for its answer.
fn exchange(
    client: Client,
    offer: Option<(std::net::Ipv4Addr, std::net::Ipv4Addr)>,
    wait: Duration,
) -> Result<Option<Reply>, InitError> {
    let doing = || "asking for an address".to_owned();
    send(stdin(), &client.ask(offer), SendFlags::empty()).doing(doing)?;
    let until = Instant::now() + wait;
    let mut frame = [0; FRAME_MAX];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut ready = [PollFd::from_borrowed_fd(stdin(), PollFlags::IN)];
        if poll(&mut ready, Some(&timeout)).doing(doing)? == 0 {
            return Ok(None);
        }
        let (length, _) = recv(stdin(), &mut frame, RecvFlags::empty()).doing(doing)?;
        match client.read(frame.get(..length).unwrap_or_default()) {
            // A late offer is no answer to a request.
            Some(Reply::Offer { .. }) if offer.is_some() => {}
            Some(reply) => return Ok(Some(reply)),
            None => {}
        }
    }
}
