"""The pinned C toolchain and small tools, unpacked into a folder and run from there, and the pinned Rust toolchain.

Nothing is installed and no root is needed. The tools are Debian 12's and run by this machine's loader and C library, which
must be Debian 12's or later; every other library of theirs comes from the folder. What they *build* sees the folder's headers,
start files and C library alone.
"""
from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deb import BadDeb, extract
from errors import cannot, ingredient
from ingredients import Ingredients, sha256
from pins import Pins

TRIPLET = "x86_64-linux-gnu"
LIBRARIES = f"usr/lib/{TRIPLET}"
# Of this package the loader and these libraries come from the machine: two C libraries in one process do not go together.
OF_THE_MACHINE = "libc6"

WRAPPER = """#!/bin/sh
LD_LIBRARY_PATH={root}/tool-libraries exec {root}/{program} {options}"$@"
"""


class Toolroot:
    """The unpacked tools. `owners` says which package each file is of."""

    def __init__(self, root: Path, owners: dict[str, str]):
        self.root, self.owners = root, owners
        self.bin = root / "wrappers"

    @classmethod
    def unpack(cls, root: Path, pins: Pins, ingredients: Ingredients) -> "Toolroot":
        """Unpacks the pinned tools into `root`, which is removed first."""
        if ":" in str(root):
            raise cannot(f"the folder's name must not hold a colon, which parts folders in LD_LIBRARY_PATH: {root}")
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        for place in ("bin", "lib", "lib64", "sbin"):
            (root / "usr" / place).mkdir(parents=True)
            (root / place).symlink_to(f"usr/{place}")
        owners: dict[str, str] = {}
        for pin in pins.of_use("tools"):
            try:
                for place in extract(ingredients.package(pin), root):
                    owners[place] = pin.name
            except (BadDeb, OSError, EOFError) as error:
                raise ingredient(f"{pin.file} cannot be unpacked: {error}") from None
        tools = cls(root, owners)
        tools._libraries_for_tools()
        tools.bin.mkdir()
        quoted = shlex.quote(str(root))
        sysroot = f"--sysroot={quoted} "
        for name, program, options in (("cc", f"usr/bin/{TRIPLET}-gcc-12", sysroot), ("ar", f"usr/bin/{TRIPLET}-ar", ""),
                                       ("ranlib", f"usr/bin/{TRIPLET}-ranlib", ""), ("as", f"usr/bin/{TRIPLET}-as", ""),
                                       ("ld", f"usr/bin/{TRIPLET}-ld.bfd", ""), ("mkfs.erofs", "usr/bin/mkfs.erofs", ""),
                                       ("fsck.erofs", "usr/bin/fsck.erofs", ""), ("mtools", "usr/bin/mtools", "")):
            if not (root / program).exists():
                raise cannot(f"the pinned packages hold no {program}")
            wrapper = tools.bin / name
            wrapper.write_text(WRAPPER.format(root=quoted, program=program, options=options))
            wrapper.chmod(0o755)
        for name in ("mformat", "mcopy", "mmd"):
            (tools.bin / name).write_text(WRAPPER.format(root=quoted, program="usr/bin/mtools", options=f"-c {name} "))
            (tools.bin / name).chmod(0o755)
        return tools

    def _libraries_for_tools(self) -> None:
        folder = self.root / "tool-libraries"
        folder.mkdir()
        for place, owner in self.owners.items():
            name = place.rsplit("/", 1)[1]
            if place == f"{LIBRARIES}/{name}" and ".so" in name and owner not in (OF_THE_MACHINE, "libc6-dev"):
                (folder / name).symlink_to(f"../{place}")

    def run(self, name: str, *arguments, env: dict[str, str] | None = None) -> str:
        """Runs a tool with nothing of the caller's environment."""
        done = subprocess.run([self.bin / name, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              env={"PATH": f"{self.bin}:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", **(env or {})})
        if done.returncode:
            raise cannot(f"{name} failed with {done.returncode}:\n{(done.stderr or done.stdout).strip()}")
        return done.stdout

    def library(self, name: str) -> tuple[str, Path, str]:
        """A shared library's package, file, and the place it has in the image."""
        path = self.root / LIBRARIES / name
        # A library may be a link to a file with its whole version: what is loaded has the short name.
        if not path.exists():
            raise KeyError(name)
        place = os.path.relpath(path.resolve(), self.root.resolve())
        return self.owners[place], path.resolve(), f"{LIBRARIES}/{name}"


def check_machine() -> None:
    """Linux on x86-64 with a C library from Debian 12's time on."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise cannot(f"images are built on Linux on x86-64; this is {platform.system()} on {platform.machine()}")
    kind, version = platform.libc_ver()
    if kind == "glibc" and tuple(int(n) for n in version.split(".")[:2]) < (2, 36):
        raise cannot(f"the pinned tools need glibc 2.36 or later (Debian 12); this machine has {version}")


@contextmanager
def alone_in(work: Path) -> Iterator[None]:
    """Makes the folder in which tools are unpacked and programs built, for one build at a time."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise cannot(f"another build works in {work}: wait for it, or name another folder with --work") from None
        yield


class Rust:
    """The pinned toolchain, found by the `rustc` in PATH."""

    def __init__(self, pins: Pins, rustc: str = "rustc"):
        self.pin = pins.rust
        path = os.environ.get("PATH", "")
        home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "bin"
        program = shutil.which(rustc, path=f"{path}:{home}")
        if program is None:
            raise cannot(f"rustc is missing. {self._install()}")
        asked = subprocess.run([program, "--print", "sysroot"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if asked.returncode:
            raise cannot(f"{program} does not run: {asked.stderr.strip()}")
        self.sysroot = Path(asked.stdout.strip())
        self.rustc, self.cargo = self.sysroot / "bin" / "rustc", self.sysroot / "bin" / "cargo"

    def _install(self) -> str:
        return (f"Install Rust {self.pin['release']} for {self.pin['host']} as the Rust project gives it out: "
                f"`rustup toolchain install {self.pin['release']}`, then `rustup default {self.pin['release']}` or RUSTUP_TOOLCHAIN={self.pin['release']}")

    def check(self) -> None:
        """Refuses every other toolchain: another compiler makes other bytes, and nobody could say why."""
        for program, key in ((self.rustc, "rustc_commit"), (self.cargo, "cargo_commit")):
            if not program.is_file():
                raise cannot(f"{program} is missing. {self._install()}")
            said = subprocess.run([program, "-vV"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
            facts = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
            if facts.get("commit-hash") != self.pin[key] or facts.get("host") != self.pin["host"]:
                raise cannot(f"{program} is {facts.get('release')}, commit {facts.get('commit-hash')}, for {facts.get('host')}; the image is built with "
                             f"{self.pin['release']}, commit {self.pin[key]}, for {self.pin['host']}. {self._install()}")
        found = self.files_sha256()
        if found != self.pin["files_sha256"]:
            raise cannot(f"the files of the toolchain in {self.sysroot} are not those that the Rust project gave out (digest {found}, pinned "
                         f"{self.pin['files_sha256']}): it was changed, or somebody else built it. {self._install()}")

    def files_sha256(self) -> str:
        """SHA-256 over name and SHA-256 of each program and library of cargo, rustc and the standard library, in the order of names."""
        host, names = self.pin["host"], set()
        for component in (f"cargo-{host}", f"rustc-{host}", f"rust-std-{host}"):
            manifest = self.sysroot / "lib" / "rustlib" / f"manifest-{component}"
            if not manifest.is_file():
                raise cannot(f"{self.sysroot} is not a toolchain as the Rust project gives it out: it has no {manifest.name}. {self._install()}")
            names |= {line[5:] for line in manifest.read_text().splitlines() if line.startswith(("file:bin/", "file:lib/"))}
        try:
            lines = "".join(f"{sha256(self.sysroot / name)}  {name}\n" for name in sorted(names))
        except OSError as error:
            raise cannot(f"the toolchain in {self.sysroot} is not complete: {error}. {self._install()}") from None
        return hashlib.sha256(lines.encode()).hexdigest()
