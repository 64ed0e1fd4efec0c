"""A booted guest with an untrusted host in front and, for test images, a simulated platform behind: questions are asked, answers judged."""
from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "attestation-verifier" / "testkit" / "python"))
import demo  # noqa: E402
import policies  # noqa: E402
from second_opinion import npy, policy  # noqa: E402
from stack import ROOT, Ends, Failed, Process, binary, touchstone, verdict  # noqa: E402

from testimage import Measured, TestImage  # noqa: E402
from vm import QUOTES, VSOCK_SOCKET, Guest  # noqa: E402

# An emulated CPU is slow, and so is a busy machine.
BOOT_SECONDS = 180.0
DATA = ROOT / "enclave" / "tests" / "data"
INPUTS = {"digits_cnn": "image", "wine_rf": "X"}


class Scene(Ends):
    """A guest and what is around it. A context manager: all of it ends with it."""

    def __init__(self, folder: Path, guest: Guest, *, platform: list[str] | None = None, tee: str = "sev-snp"):
        self.folder, self.guest, self.platform, self.tee = folder, guest, platform, tee
        self.processes: list[Process] = []
        self.root = folder / "platform" / "root.pem"

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.platform is not None:
            # Connections of the guest's to the host's port P arrive at <socket>_P.
            arguments = ["--protocol", "guest", "--socket", f"{VSOCK_SOCKET}_{QUOTES}", "--dir", "platform", "--tee", self.tee, "--control", "fault"]
            self._run("simulated-platform", [*arguments, *self.platform]).wait_for("SIMULATED")
        self.guest.__enter__()

    def _run(self, program: str, arguments: list) -> Process:
        process = Process(program, [binary(program), *arguments], self.folder / f"{program}.log", folder=self.folder)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()
        self.processes.clear()
        self.guest.stop()

    def serve(self, seconds: float = BOOT_SECONDS) -> float:
        """Starts the host and waits until the enclave behind it is ready. How long that took since QEMU started, in seconds."""
        lines = "".join(f'{name} = "{address}"\n' for name, address in self.guest.addresses().items())
        (self.folder / "host.toml").write_text(
            f'listen = "tcp://127.0.0.1:0"\nthreads = 2\n[enclave]\n{lines}connect_timeout_ms = 10000\n'
            '[store]\npath = "store/receipts.sqlite"\n[collateral]\nfolder = "platform/collateral"\n'
        )
        host = self._run("host", ["--config", "host.toml"])
        self.address = host.wait_for(r'listening address="?(?:tcp://)?([0-9.]+:[0-9]+)')[1]
        self.https = f"https://{self.address}"
        deadline, last = time.monotonic() + seconds, ""
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://{self.address}/v2/health/ready", timeout=10):
                    return time.monotonic() - self.guest.started
            except (urllib.error.URLError, OSError) as error:
                last = str(error)
            if self.guest.ended():
                raise Failed(f"the guest ended:\n{self.guest.console()[-3000:]}")
            time.sleep(0.1)
        raise Failed(f"the enclave is not ready after {seconds:.0f} s: {last}\n{self.guest.console()[-3000:]}")

    def policy(self, image: TestImage, *, measurements: dict[str, str] | None = None) -> Path:
        """The strict template for callers, with the test manifest's signer; or with measurements named one by one."""
        path = self.folder / "policy.toml"
        path.unlink(missing_ok=True)
        who = [] if measurements else ["--manifest-signer", f"test={image.out / 'signer.pub.pem'}", "--threshold", "1",
                                       "--manifest-name", "touchstone-test-image"]  # fmt: skip
        done = touchstone("policy", "init", "--profile", "serve", "--tee", self.tee, *who, "-o", path)
        if done.returncode:
            raise Failed(f"touchstone policy init: {done.stderr}")
        # How the runtime computes depends on the CPU, which is an emulated one.
        edits = {"configs": '{ waive = "the CPU of an emulated machine is nobody\'s" }'}
        if measurements:
            models = [policies.model_digest(folder) for folder in sorted((DATA / "models").glob("*/*")) if folder.is_dir()]
            edits |= policies.expecting(measurements, *models)
        path.write_text(policy.edit(path.read_text(), edits))
        return path

    def ask(self, image: TestImage, model: str, number: int, name: str, *, measurements: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        """Asks about one held-out row; the answer's folder is `answers/<name>`."""
        descr, shape, raw = npy.read(DATA / "held-out" / f"{model}_x.npy")
        size, row = len(raw) // shape[0], self.folder / f"{model}-{number}.npy"
        npy.write(row, descr, [1, *shape[1:]], raw[number * size : (number + 1) * size])
        manifest = [] if measurements else ["--manifest", image.out / "manifest.jsonl"]
        self.judging = ["--policy", self.policy(image, measurements=measurements), "--trust-simulated-root", self.root, *manifest]
        (self.folder / "answers").mkdir(exist_ok=True)
        return touchstone("ask", self.https, model, "--input", f"{INPUTS[model]}={row}", *self.judging, "--require", "logged signed",
                          "-o", self.folder / "answers" / name)  # fmt: skip

    def answered(self, image: TestImage, model: str, number: int, name: str, **how) -> str:
        """Asks, judges the kept answer offline, and compares it with the label. What was found, for people; or why not."""
        done = self.ask(image, model, number, name, **how)
        if done.returncode:
            raise Failed(f"touchstone ask ended with {done.returncode}: {done.stdout}{done.stderr}".strip())
        folder = self.folder / "answers" / name
        done = touchstone("check", folder, *self.judging, "--expect-simulated", "--json")
        found = verdict(done)
        (folder / "verdict.json").write_text(done.stdout)
        if done.returncode or found["exit"] or not {"logged", "signed"} <= set(found["achieved"]) or found["binding"] != "tls-exporter":
            raise Failed(f"touchstone check: exit {found['exit']}, decided by {found.get('deciding')}")
        probabilities = demo.outputs(folder)
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        _, _, labels = npy.read(DATA / "held-out" / f"{model}_y.npy")
        label = int.from_bytes(labels[number * 8 : number * 8 + 8], "little")
        if best != label:
            raise Failed(f"{model}, row {number}: answered {best}, the label says {label}")
        return f"{model} row {number}: {best} ({probabilities[best]:.3f}), as labelled; holds: {' '.join(found['achieved'])}"

    def refused(self, image: TestImage, model: str, number: int, name: str, exit_code: int, deciding: tuple[str, ...]) -> str:
        """Asks what must not be sent: the command refuses, one of these checks decides, and nothing is kept of a question."""
        done = self.ask(image, model, number, name)
        because = re.search(r"^because ([a-z_.]+): (.*)", done.stderr, re.M)
        found = because[1] if because else done.stderr.strip()
        folder = self.folder / "answers" / name
        if done.returncode != exit_code or found not in deciding or (folder / "response.bin").exists():
            raise Failed(f"exit {done.returncode}, decided by {found}; expected exit {exit_code} by {' or '.join(deciding)}\n{done.stderr}")
        return f"exit {done.returncode}, decided by {found}; the question was not sent"


def guest(folder: Path, way: Measured, kernel: Path, **devices) -> Guest:
    """The guest of one way of booting."""
    return Guest(folder, kernel=kernel, initrd=way.initrd.resolve(), cmdline=way.cmdline, **devices)
