//! Tells the program what it was built with, for its build statement.

use std::{env, process::Command};

fn main() {
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC for build scripts");
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .expect("the compiler that builds this runs")
        .stdout;
    let version = String::from_utf8(version).expect("rustc --version is UTF-8");

    let mut features: Vec<String> = env::vars()
        .filter_map(|(key, _)| {
            key.strip_prefix("CARGO_FEATURE_")
                .map(|name| name.to_lowercase().replace('_', "-"))
        })
        .collect();
    features.sort();

    let cargo = |key| env::var(key).expect("cargo sets it for build scripts");
    println!("cargo::rustc-env=TOUCHSTONE_BUILD_RUSTC={}", version.trim());
    println!(
        "cargo::rustc-env=TOUCHSTONE_BUILD_TARGET={}",
        cargo("TARGET")
    );
    println!(
        "cargo::rustc-env=TOUCHSTONE_BUILD_PROFILE={}",
        cargo("PROFILE")
    );
    println!(
        "cargo::rustc-env=TOUCHSTONE_BUILD_FEATURES={}",
        features.join(",")
    );
    println!("cargo::rerun-if-changed=build.rs");
}
