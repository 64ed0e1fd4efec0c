//! PID 1 of Touchstone's guest image: it starts the enclave, closes the guest behind it and powers off when it ends.
//!
//! Everything it goes by is measured: the kernel's command line ([`cmdline`]) and `init.toml` ([`settings`]). [`boot`] is the
//! order in which things happen, and the only thing that does them; what they are is in docs/guest.md. A failure is said on the console
//! and ends the guest: there is no shell, no second try, and nothing that goes on with less.
//!
//! The same program is started twice more, as a child that has dropped its rights: to become the enclave
//! ([`become_user`]), and, for an address by DHCP, to read what strangers send ([`network::dhcp`]).

pub mod become_user;
pub mod boot;
pub mod close;
pub mod cmdline;
pub mod error;
pub mod network;
pub mod quote;
pub mod settings;
pub mod sys;
pub mod volume;

/// Says something on the console.
pub fn say(what: &str) {
    use std::io::Write;
    // There is nobody to tell that there is no console.
    let _ = writeln!(std::io::stderr(), "touchstone-init: {what}");
}
