"""What a manifest says of an image: measured by the project's own `touchstone measure`, written by `touchstone manifest`."""
from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from errors import Say, cannot
from pins import Pins

# The firmware that is pinned: edk2-stable202608, which measures as `--edk2 202508` says, and takes the kernel as it is from QEMU 10.0 on.
TDX = ("--setup-header", "as-is", "--edk2", "202508")


@dataclass
class Wishes:
    """What the operator says about platforms and the manifest."""

    vcpus: str = "1,2,4,8,16,32"
    cpu: str = "EPYC-Milan,EPYC-Genoa,EPYC-Turin"
    guest_features: str = "0x1"
    page_add_order: str = "one-pass,two-pass"
    rtmr0: list[str] = field(default_factory=list)
    event_log: list[Path] = field(default_factory=list)
    name: str = "touchstone-enclave"
    version: int = 1
    release: str = "unreleased"
    issued: str | None = None
    not_after: str | None = None
    minimum_tcb: list[str] = field(default_factory=list)


class Entry:
    """Writes measured-snp.json, measured-tdx.json and the draft of a manifest into the image's folder."""

    def __init__(self, touchstone: Path, out: Path, pins: Pins, say: Say):
        self.touchstone, self.out, self.pins, self.say = touchstone, out, pins, say

    def _run(self, *arguments) -> str:
        done = subprocess.run([self.touchstone, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise cannot(f"touchstone {' '.join(map(str, arguments[:2]))} ended with {done.returncode}:\n{done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def measure(self, wishes: Wishes) -> None:
        boot = ["--kernel", self.out / "vmlinuz", "--initrd", self.out / "initrd.img", "--cmdline-file", self.out / "cmdline", "--json"]
        self.say("measuring for SEV-SNP and TDX (touchstone measure)")
        snp = self._run("measure", "snp", "--firmware", self.out / "OVMF.amdsev.fd", *boot, "--vmm", "qemu", "--vcpus", wishes.vcpus,
                        "--cpu", wishes.cpu, "--guest-features", wishes.guest_features)
        observed = [word for value in wishes.rtmr0 for word in ("--rtmr0", value)]
        observed += [word for value in wishes.event_log for word in ("--event-log", value)]
        tdx = self._run("measure", "tdx", "--firmware", self.out / "OVMF.inteltdx.fd", *boot, "--page-add-order", wishes.page_add_order, *TDX, *observed)
        for name, text in (("measured-snp.json", snp), ("measured-tdx.json", tdx)):
            (self.out / name).write_text(text)
            (self.out / name).chmod(0o644)

    def _add(self, draft: Path, wishes: Wishes, platform: str, measured: str, tcb: list[str], programs: dict[str, Path], library: Path) -> list[str]:
        kernel, firmware = self.pins.of_use("kernel")[0], self.pins.firmware("amdsev" if platform == "sev-snp" else "inteltdx")
        says = {
            "firmware": ("pinned-binary", f"Debian {firmware.name} {firmware.version}" + (", with empty variables" if platform == "tdx" else "")),
            "kernel": ("pinned-binary", f"Debian {kernel.name} {kernel.version}"),
            "initrd": ("rebuilt", "scripts/build-image: touchstone-init, enclave, modules and C libraries as pinned"),
            "cmdline": ("rebuilt", "scripts/build-image"),
            "enclave": ("rebuilt", "scripts/build-image"),
            "onnxruntime": ("pinned-binary", "measurements/onnxruntime"),
        }
        words = ["manifest", "add", str(draft), "--release", wishes.release, "--platform", platform, "--measured", str(self.out / measured),
                 "--quote-source", "exclusive", "--ingredient", f"enclave={programs['usr/bin/enclave']}", "--ingredient", f"onnxruntime={library}"]
        for role, (origin, source) in says.items():
            words += ["--origin", f"{role}={origin}", "--source", f"{role}={source}"]
        for value in tcb:
            words += ["--minimum-tcb", value]
        return words

    def manifest(self, wishes: Wishes, models: list[tuple[str, str, Path]], programs: dict[str, Path], library: Path) -> list[str]:
        """Writes manifest.draft.json, as far as the operator said what only he can: least TCBs, the time of its end, and for TDX RTMR0.
        Returns the commands that are left to run, and why."""
        draft, left = self.out / "manifest.draft.json", []
        draft.unlink(missing_ok=True)
        if wishes.not_after is None:
            return ["no manifest was begun: say when it ends with --not-after RFC3339"]
        issued = ["--issued", wishes.issued] if wishes.issued else []
        self._run("manifest", "new", "--name", wishes.name, "--version", wishes.version, *issued, "--not-after", wishes.not_after, "-o", draft)
        for platform, measured, mine in (("sev-snp", "measured-snp.json", lambda t: ":" in t), ("tdx", "measured-tdx.json", lambda t: ":" not in t)):
            tcb = [t for t in wishes.minimum_tcb if mine(t)]
            words = self._add(draft, wishes, platform, measured, tcb or ["TCB"], programs, library)
            seen = platform != "tdx" or any(m["tdx"]["rtmr0"] for m in json.loads((self.out / measured).read_text())["measurements"])
            if tcb and seen:
                self._run(*words)
                continue
            why = [] if tcb else ["its least TCB is not said (--minimum-tcb)"]
            if not seen:
                why.append("RTMR0 is not known until it was seen on your machine (--event-log, --rtmr0)")
                words += ["--rtmr0", "HEX"]
            left.append(f"{platform} is not in the manifest: {'; '.join(why)}. To add it: touchstone {shlex.join(words)}")
        for name, version, folder in models:
            digest = self._run("model", "digest", folder).split()[0]
            self._run("manifest", "add-model", draft, "--name", name, "--version", version, "--digest", digest)
        left.append(f"next: touchstone manifest sign {draft} --key KEY.pem -o manifest.jsonl")
        return left


def models_of(repository: Path) -> list[tuple[str, str, Path]]:
    """Name, version and folder of each model of a repository."""
    return [(p.parent.parent.name, p.parent.name, p.parent) for p in sorted(repository.glob("*/*/model.onnx"))]
