"""Gets every ingredient: from a folder given, from those fetched before, else from the mirror; each checked by size and SHA-256."""
from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import crates
from errors import Say, cannot, ingredient
from mirror import Mirror
from pins import ROOT, Package, Pins, onnxruntime

LIBRARY = "libonnxruntime.so"
CRATES = "crates"


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while part := source.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def put(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    part.chmod(0o644)
    part.replace(path)


class Ingredients:
    """`given` is the operator's folder (read only), `cache` where fetched files are kept; `offline`: no network at all."""

    def __init__(self, pins: Pins, cache: Path, say: Say, mirror: Mirror, given: Path | None = None, offline: bool = False):
        self.pins, self.cache, self.say, self.mirror, self.given, self.offline = pins, cache, say, mirror, given, offline
        if given is not None and not given.is_dir():
            raise cannot(f"--ingredients {given} is no folder")

    def package(self, pin: Package) -> bytes:
        """The package's bytes, as pinned."""
        supplied = self.given / pin.file if self.given else None
        if supplied is not None and supplied.is_file():
            data = supplied.read_bytes()
            if (found := hashlib.sha256(data).hexdigest()) != pin.sha256:
                raise ingredient(f"{supplied} is not what is pinned: it has {len(data)} bytes and SHA-256 {found}, "
                                 f"{pin.name} {pin.version} has {pin.size} bytes and SHA-256 {pin.sha256}")
            return data
        kept = self.cache / pin.file
        if kept.is_file():
            data = kept.read_bytes()
            if hashlib.sha256(data).hexdigest() == pin.sha256:
                return data
            self.say(f"{kept} is damaged: it is fetched anew")
        if self.offline:
            raise ingredient(f"{pin.file} (SHA-256 {pin.sha256}) is neither in {self.given or 'a folder given with --ingredients'} nor in {kept.parent}, "
                             "and nothing is fetched with --offline")
        data = self.mirror.package(pin)
        put(kept, data)
        return data

    def all_packages(self, pins: list[Package]) -> None:
        """Gets all of these now. Offline, everything that is missing is named at once."""
        if self.offline:
            folders = [f for f in (self.given, self.cache) if f is not None]
            missing = [p for p in pins if not any((f / p.file).is_file() for f in folders)]
            if missing:
                lines = "\n".join(f"  {p.file}  {p.size} bytes, SHA-256 {p.sha256}" for p in missing)
                raise ingredient(f"{len(missing)} of {len(pins)} packages are missing, and nothing is fetched with --offline:\n{lines}\n"
                                 f"Put them into the folder that --ingredients names (looked in: {', '.join(map(str, folders))})")
        for pin in pins:
            self.package(pin)

    def library(self) -> Path:
        """ONNX Runtime's library, as pinned in measurements/onnxruntime."""
        wanted = onnxruntime()
        for folder in (self.given, self.cache, ROOT / "target" / "onnxruntime"):
            if folder is not None and (path := folder / LIBRARY).is_file():
                found = sha256(path)
                if found == wanted:
                    return path
                if folder is self.given:
                    raise ingredient(f"{path} is not what is pinned: it has SHA-256 {found}, not {wanted}")
        if self.offline:
            raise ingredient(f"{LIBRARY} (SHA-256 {wanted}) is missing, and nothing is fetched with --offline: put it into the folder "
                             "that --ingredients names")
        self.say("fetching ONNX Runtime's library (scripts/fetch-onnxruntime)")
        done = subprocess.run([ROOT / "scripts" / "fetch-onnxruntime"], stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
                              env={**os.environ, "PYTHON": sys.executable})
        if done.returncode:
            raise ingredient("ONNX Runtime's library could not be fetched: what is above says why")
        return Path(done.stdout.strip())

    def crates(self, cargo: Path) -> list[Path]:
        """Folders that have the archives of crates, not yet looked at: the operator's, where he gave one, else cargo's own, which fetches what
        it does not have. That is the only step of cargo's that may use the network, and has the caller's environment for it."""
        given = self.given / CRATES if self.given else None
        if given is not None and given.is_dir():
            return [given]
        self.say("fetching crates (cargo fetch --locked)")
        offline = ["--offline"] if self.offline else []
        done = subprocess.run([cargo, "fetch", "--locked", "--quiet", *offline, "--manifest-path", ROOT / "Cargo.toml"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, env={**os.environ, "RUSTC": str(cargo.with_name("rustc"))})
        if done.returncode:
            raise cannot("the crates of Cargo.lock cannot be had: what is above says why. Without a network, a folder written with "
                         "`scripts/build-image --archive DIR` has them: --ingredients DIR")
        home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
        return sorted(p for p in (home / "registry" / "cache").glob("*") if p.is_dir())

    def archive(self, target: Path, cargo: Path) -> None:
        """Writes a complete folder for --ingredients: packages, library and crates. (Rust's toolchain is installed, not archived.)"""
        if target.exists() and any(target.iterdir()):
            raise cannot(f"{target} is not empty")
        for pin in self.pins.packages:
            put(target / pin.file, self.package(pin))
        shutil.copyfile(self.library(), target / LIBRARY)
        folders = self.crates(cargo)
        for crate in crates.locked():
            put(target / CRATES / crate.file, crates.archive(crate, folders))
