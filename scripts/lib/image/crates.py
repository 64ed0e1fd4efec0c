"""The crates of Cargo.lock: archives whose SHA-256 it names, unpacked here for each build.

Cargo compares an archive with Cargo.lock when it downloads it, and never again: what lies unpacked in its home, or in a folder of
vendored crates, it builds as it finds it. Whoever edits a crate there, for a try, would have it in the image.
"""
from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from errors import cannot, ingredient
from pins import ROOT

REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"
# Of all files: cargo runs a build script again when a file that it names is newer than its last run.
TIME = 1


@dataclass(frozen=True)
class Crate:
    """One package of Cargo.lock that is not this workspace's own."""

    name: str
    version: str
    sha256: str

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}"

    @property
    def file(self) -> str:
        return f"{self.folder}.crate"


def own(lock: Path = ROOT / "Cargo.lock") -> list[str]:
    """Names of the packages that are this workspace's own."""
    stanzas = [dict(re.findall(r'^(\w+) = "([^"\n]*)"$', stanza, re.M)) for stanza in lock.read_text().split("[[package]]")[1:]]
    return [fields["name"] for fields in stanzas if "source" not in fields]


def locked(lock: Path = ROOT / "Cargo.lock") -> list[Crate]:
    """The crates that the lock file names, each with its digest; one of another registry, or without a digest, is refused."""
    found = []
    for stanza in lock.read_text().split("[[package]]")[1:]:
        fields = dict(re.findall(r'^(\w+) = "([^"\n]*)"$', stanza, re.M))
        if "source" not in fields:
            continue
        crate = Crate(fields.get("name", ""), fields.get("version", ""), fields.get("checksum", ""))
        named = re.fullmatch(r"[A-Za-z0-9_-]+", crate.name) and re.fullmatch(r"[0-9][A-Za-z0-9.+-]*", crate.version)
        if fields["source"] != REGISTRY or not named or not re.fullmatch("[0-9a-f]{64}", crate.sha256):
            raise cannot(f"{lock}: {crate.folder} is of {fields['source']}, with the digest `{crate.sha256}`: an image takes crates of crates.io alone, by their SHA-256")
        found.append(crate)
    return found


def archive(crate: Crate, folders: list[Path]) -> bytes:
    """The crate's archive out of the first of these folders that has it as it is pinned."""
    wrong = []
    for path in (folder / crate.file for folder in folders):
        if path.is_file():
            data = path.read_bytes()
            found = hashlib.sha256(data).hexdigest()
            if found == crate.sha256:
                return data
            wrong.append(f"{path} is not what Cargo.lock names: it has SHA-256 {found}, not {crate.sha256}")
    raise ingredient("; ".join(wrong) or f"{crate.file} (SHA-256 {crate.sha256}) is missing; looked in {', '.join(map(str, folders))}")


def unpack(crates: list[Crate], folders: list[Path], target: Path) -> Path:
    """Makes `target`, which is removed first, a directory source of cargo's: each crate out of its archive, and nothing else."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for crate in crates:
        with tarfile.open(fileobj=io.BytesIO(archive(crate, folders)), mode="r:gz") as members:
            for member in members:
                place = PurePosixPath(member.name)
                if place.is_absolute() or ".." in place.parts or place.parts[:1] != (crate.folder,) or not (member.isdir() or member.isreg()):
                    raise ingredient(f"{crate.file} holds {member.name}, which is neither file nor folder below {crate.folder}")
                path = target / place
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(members.extractfile(member).read())
                path.chmod(0o755 if member.mode & 0o100 else 0o644)
                os.utime(path, (TIME, TIME))
        # What cargo wants of a directory source: the archive's digest, which it compares with Cargo.lock; and files to look at, none.
        (target / crate.folder / ".cargo-checksum.json").write_text(json.dumps({"files": {}, "package": crate.sha256}))
    return target
