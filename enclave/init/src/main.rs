//! `/init` of the guest image.

use std::process::ExitCode;

use touchstone_init::{become_user, boot, network, say};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        // A panic ends the guest like any other failure.
        std::panic::set_hook(Box::new(|panic| boot::power_off(&panic.to_string())));
        match boot::run() {
            Ok(never) => match never {},
            Err(error) => boot::power_off(&error.to_string()),
        }
    }
    let mut arguments = std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned());
    let role = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    let done = match role.as_str() {
        "enclave" => become_user::run(&arguments),
        "dhcp" => network::dhcp::run(&arguments),
        _ => {
            say("this is the first process of a guest image, and does nothing else");
            return ExitCode::FAILURE;
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{role}: {error}"));
            ExitCode::FAILURE
        }
    }
}
