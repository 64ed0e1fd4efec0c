"""Builds the image's programs with the pinned toolchains, so that the same source gives the same bytes anywhere."""
from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import crates
from errors import Say, cannot
from ingredients import Ingredients
from pins import ROOT, Pins
from toolroot import Rust, Toolroot

# Package, program, place in the image.
PROGRAMS = (("touchstone-init", "touchstone-init", "init"), ("enclave", "enclave", "usr/bin/enclave"))

# Set here in full: what is built is no matter of Cargo.toml's defaults.
PROFILE = {"OPT_LEVEL": "3", "LTO": "thin", "CODEGEN_UNITS": "4", "PANIC": "unwind", "DEBUG": "0", "STRIP": "symbols", "INCREMENTAL": "false",
           "DEBUG_ASSERTIONS": "false", "OVERFLOW_CHECKS": "false", "SPLIT_DEBUGINFO": "off", "RPATH": "false"}
# The program that measures is in no image, and built to be there soon.
QUICK = {**PROFILE, "OPT_LEVEL": "1", "LTO": "off", "CODEGEN_UNITS": "16"}


class Builder:
    """One build: `work` holds everything it writes. `remap` off is for the control of scripts/repro-check."""

    def __init__(self, pins: Pins, rust: Rust, tools: Toolroot, ingredients: Ingredients, work: Path, say: Say, jobs: int | None = None,
                 remap: bool = True):
        self.pins, self.rust, self.tools, self.ingredients = pins, rust, tools, ingredients
        self.work, self.say, self.jobs, self.remap = work, say, jobs, remap
        self.target, self.crates, self.cargo_home = work / "cargo", work / "crates", work / "home"
        # Nothing is found on the way up from here.
        self.start = Path("/")

    def check_configuration(self) -> None:
        """Refuses every configuration file that cargo would read: in the folder that it is started in, which is /, and in its home, which is
        this build's own. Much of what one may say (other crates, results of build scripts, variables by force) nothing takes back."""
        for path in (folder / name for folder in (self.start / ".cargo", self.cargo_home) for name in ("config.toml", "config")):
            if path.exists():
                raise cannot(f"{path} is there, and cargo would go by it: remove it (CARGO_HOME moves what else is there)")

    def fetch(self) -> None:
        """Unpacks the crates of Cargo.lock, each compared with its digest there."""
        folders = self.ingredients.crates(self.rust.cargo)
        self.say("unpacking crates")
        crates.unpack(crates.locked(), folders, self.crates)

    def _prefixes(self) -> list[tuple[Path, str]]:
        """Folders of this machine, and what stands in their place in the programs. Where several fit, the last counts."""
        prefixes = [(ROOT, "/touchstone"), (self.cargo_home, "/cargo"), (self.rust.sysroot, "/rust"), (self.target, "/target"),
                    (self.tools.root, "/toolroot"), (self.crates, "/crates")]
        # Compilers see some of these by their real names.
        return [pair for path, name in prefixes for pair in {(path, name): 0, (path.resolve(), name): 0}]

    def _compiler(self) -> Path:
        """The pinned C compiler with this build's options behind all others. (Options in CFLAGS are parted at spaces, which names of folders may have.)"""
        options = ["-g0", *(f"-ffile-prefix-map={path}={name}" for path, name in self._prefixes() if self.remap)]
        program = self.work / "cc"
        program.write_text(f"#!/bin/sh\nexec {shlex.quote(str(self.tools.bin / 'cc'))} \"$@\" {shlex.join(options)}\n")
        program.chmod(0o755)
        return program

    def environment(self, profile: dict[str, str] = PROFILE) -> dict[str, str]:
        """The whole environment of the build: nothing of the caller's."""
        compiler = self._compiler()
        flags = ["-Clink-arg=-Wl,--build-id=none", "-Ctarget-cpu=x86-64", f"-Clinker={compiler}"]
        if self.remap:
            flags += [f"--remap-path-prefix={path}={name}" for path, name in self._prefixes()]
        self.cargo_home.mkdir(parents=True, exist_ok=True)
        return {
            "PATH": f"{self.tools.bin}:{self.rust.sysroot / 'bin'}:/usr/bin:/bin", "HOME": str(self.cargo_home), "CARGO_HOME": str(self.cargo_home),
            "LC_ALL": "C", "TZ": "UTC", "SOURCE_DATE_EPOCH": str(self.pins.source_date_epoch),
            "RUSTC": str(self.rust.rustc), "RUSTC_WRAPPER": "", "RUSTC_WORKSPACE_WRAPPER": "", "CARGO_TARGET_DIR": str(self.target),
            "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags), "CARGO_TERM_COLOR": "never", "CARGO_NET_OFFLINE": "true",
            "CARGO_INCREMENTAL": "0", "CARGO_BUILD_INCREMENTAL": "false",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER": str(compiler),
            "CC": str(compiler), "AR": str(self.tools.bin / "ar"), "RANLIB": str(self.tools.bin / "ranlib"),
            **{f"CARGO_PROFILE_RELEASE_{key}": value for key, value in profile.items()},
        }

    def cargo(self, package: str, profile: dict[str, str] = PROFILE) -> None:
        command = [str(self.rust.cargo), "build", "--release", "--locked", "--offline", "--manifest-path", str(ROOT / "Cargo.toml"), "-p", package]
        if self.jobs:
            command += ["--jobs", str(self.jobs)]
        if self.say.quiet:
            command.append("--quiet")
        command += ["--config", 'source.crates-io.replace-with="unpacked"', "--config", f"source.unpacked.directory={json.dumps(str(self.crates))}"]
        done = subprocess.run(command, cwd=self.start, env=self.environment(profile), stdin=subprocess.DEVNULL)
        if done.returncode:
            raise cannot(f"{package} cannot be built: what is above says why")

    def _forget(self) -> None:
        """Has this workspace's own packages compiled again. Cargo goes by the times of files: another release's, unpacked or copied over this
        one's with its own times, may be older than what an earlier build left, and would not be looked at."""
        kept = self.target / "release" / ".fingerprint"
        for name in crates.own():
            for path in kept.glob(f"{name}-*"):
                shutil.rmtree(path)

    def programs(self) -> dict[str, Path]:
        """Builds each program by itself, so that none gets features that another asked a shared crate for. By place in the image."""
        self._forget()
        built = {}
        kept = self.work / "programs"
        kept.mkdir(parents=True, exist_ok=True)
        for package, program, place in PROGRAMS:
            self.say(f"building {package}")
            self.cargo(package)
            built[place] = kept / program
            shutil.copyfile(self.target / "release" / program, kept / program)
        return built

    def touchstone(self) -> Path:
        """The command line program that measures the image; it is not in it."""
        self.say("building touchstone, which measures the image")
        self.cargo("touchstone-cli", QUICK)
        return self.target / "release" / "touchstone"
