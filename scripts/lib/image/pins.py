"""The pinned ingredients: enclave/image/pins.json."""
from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from errors import cannot

ROOT = Path(__file__).resolve().parents[3]
PINS = ROOT / "enclave" / "image" / "pins.json"
ARCHIVES = ("debian", "debian-security")
USES = ("kernel", "firmware", "stub", "tools", "image")


@dataclass(frozen=True)
class Package:
    """One Debian package. `follow` names the package whose first dependency says what this one is called next."""

    name: str
    version: str
    suite: str
    archive: str
    path: str
    size: int
    sha256: str
    licence: str
    use: tuple[str, ...]
    purpose: str
    follow: str | None = None

    @property
    def file(self) -> str:
        return self.path.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Pins:
    """Everything that is pinned by this file; ONNX Runtime's library is pinned in measurements/onnxruntime."""

    source_date_epoch: int
    rust: dict
    packages: tuple[Package, ...]
    sha256: str = field(repr=False)

    def of_use(self, use: str) -> list[Package]:
        return [p for p in self.packages if use in p.use]

    def find(self, name: str) -> Package:
        for package in self.packages:
            if name in (package.name, package.follow):
                return package
        raise cannot(f"no package {name} is pinned; pinned are: {', '.join(p.name for p in self.packages)}")

    def firmware(self, tee: str) -> Package:
        return next(p for p in self.of_use("firmware") if tee in p.name)


def load(path: Path = PINS) -> Pins:
    text = path.read_bytes()
    try:
        document = json.loads(text)
        packages = tuple(Package(**{**p, "use": tuple(p["use"])}) for p in document["packages"])
        pins = Pins(document["source_date_epoch"], document["rust"], packages, hashlib.sha256(text).hexdigest())
    except (ValueError, KeyError, TypeError) as error:
        raise cannot(f"{path} is not written as it must be: {error}") from None
    for p in packages:
        if p.archive not in ARCHIVES or not set(p.use) <= set(USES) or not re.fullmatch("[0-9a-f]{64}", p.sha256) \
                or p.path.startswith("/") or ".." in p.path.split("/"):
            raise cannot(f"{path}: the pin of {p.name} is not written as it must be")
    return pins


def write(changed: dict[str, Package], path: Path = PINS) -> None:
    """Puts new pins in the place of the old ones of the names given."""
    document = json.loads(path.read_text())
    for i, old in enumerate(document["packages"]):
        new = changed.get(old["name"])
        if new is not None:
            document["packages"][i] = {**old, "name": new.name, "version": new.version, "path": new.path,
                                       "size": new.size, "sha256": new.sha256}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def onnxruntime() -> str:
    """The SHA-256 that ONNX Runtime's library must have."""
    return (ROOT / "measurements" / "onnxruntime" / "library.sha256").read_text().split()[0]
