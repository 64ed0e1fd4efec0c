"""Outcomes of boots: each is said as it comes, kept for the table at the end, and asserted by whoever ran it."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from errors import Say, Stop, cannot  # noqa: E402
from pins import ROOT  # noqa: E402

# Where the programs outside the guest are, before anything is loaded that looks for them.
os.environ["TOUCHSTONE_BIN_DIR"] = str(Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug")

# Exit code where QEMU is missing: nothing was tested, which is neither right nor wrong.
SKIPPED = 6
# What a 1.4 MB static init that answered HTTP took on a machine of this kind: to be seen beside what this one takes.
REFERENCE = "a static init of 1.4 MB that answers HTTP: 8 to 10 s on one emulated CPU"


@dataclass
class Outcome:
    """One thing that was tried."""

    name: str
    right: bool
    found: str
    seconds: float


class Outcomes:
    def __init__(self, say: Say):
        self.say, self.list = say, []

    def run(self, name: str, tried: Callable[[], str]) -> bool:
        """Runs it; what it returns is what was found, and an error that it did not come out as it must."""
        from stack import Failed

        began = time.monotonic()
        try:
            found, right = tried(), True
        except (Failed, Stop, OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            found, right = str(error), False
        self.add(name, right, found, time.monotonic() - began)
        return right

    def add(self, name: str, right: bool, found: str, seconds: float = 0.0) -> None:
        self.list.append(Outcome(name, right, found, seconds))
        self.say(f"{'ok     ' if right else 'FAILED '} {name}: {found}")

    def table(self) -> str:
        width = max((len(outcome.name) for outcome in self.list), default=0)
        rows = [f"{'ok' if o.right else 'FAILED':<6} {o.name:<{width}} {o.seconds:6.1f} s  {o.found.splitlines()[0][:110] if o.found else ''}"
                for o in self.list]  # fmt: skip
        return "\n".join(rows)

    @property
    def right(self) -> int:
        return sum(outcome.right for outcome in self.list)

    def closing(self) -> str:
        return f"{self.right} of {len(self.list)} outcomes as expected"

    def to_json(self) -> list[dict]:
        return [{"name": o.name, "right": o.right, "found": o.found, "seconds": round(o.seconds, 2)} for o in self.list]


def host_programs(jobs: int | None) -> None:
    """Builds what runs outside the guest, as scripts/test does."""
    for package in ("host", "touchstone-cli", "touchstone-testkit"):
        command = ["cargo", "build", "--locked", "--quiet", "--manifest-path", str(ROOT / "Cargo.toml"), "-p", package]
        if jobs:
            command += ["--jobs", str(jobs)]
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
            raise cannot(f"{package} cannot be built: what is above says why")


def guarded(name: str, as_json: bool, program: Callable[[], int]) -> int:
    """Runs a program to its exit code. However it ends, by SIGTERM too, what it started has ended before."""
    from stack import Failed

    def interrupted(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)
    try:
        return program()
    except (Stop, Failed) as error:
        code = error.code if isinstance(error, Stop) else 1
        print(f"{name}: {error}", file=sys.stderr)
        if as_json:
            print(json.dumps({"error": str(error), "exit": code}, ensure_ascii=False))
        return code
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


def report(outcomes: Outcomes, times: dict[str, float], facts: dict, logs: Path, qemu: str) -> dict:
    """All of it as one JSON object."""
    return {"outcomes": outcomes.to_json(), "boot_seconds": {name: round(seconds, 1) for name, seconds in times.items()}, "logs": str(logs),
            "files": {file["name"]: file["size"] for file in facts["files"]}, "qemu": qemu}  # fmt: skip


def figures(times: dict[str, float], facts: dict) -> str:
    """Sizes and boot times, for people."""
    took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in times.items()) or "no boot came so far"
    return f"image: {sizes(facts)}\nfrom QEMU's start until the enclave was ready: {took} ({REFERENCE})"


def sizes(facts: dict) -> str:
    by_name = {file["name"]: file["size"] for file in facts["files"]}
    total = by_name["vmlinuz"] + by_name["initrd.img"]
    return f"kernel {by_name['vmlinuz'] / 1e6:.1f} MB, initrd {by_name['initrd.img'] / 1e6:.1f} MB: {total / 1e6:.1f} MB to boot"


def qemu_or_stop() -> str:
    """QEMU's version; else the end, with a message that says how to get it."""
    from vm import QEMU, qemu_version

    version = qemu_version()
    if version is None:
        raise Stop(SKIPPED, f"SKIPPED: {QEMU} is missing (Debian: the package qemu-system-x86; --no-install-recommends will do). Nothing was booted")
    return version


