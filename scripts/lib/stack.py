"""Starts a simulated platform, an enclave and a host on loopback, and ends them again.

Standard library alone. Shared by scripts/demo, scripts/bench and the tests of scripts/test. Every process
that is started here is ended here, by its own handle, and no other one is touched.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# Where the programs are; scripts/test names a folder of its own.
PROGRAMS = Path(os.environ.get("TOUCHSTONE_BIN_DIR", TARGET / "release"))
LIBRARY = ROOT / "target" / "onnxruntime" / "libonnxruntime.so"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Failed(Exception):
    """Something that should have worked did not; the message is for people."""


def binary(name: str) -> Path:
    path = PROGRAMS / name
    if not path.exists():
        raise Failed(f"{path} is missing: build it first")
    return path


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, name: str, command: list, log: Path, cpus: str | None = None, folder: Path | None = None):
        self.name, self.log = name, log
        if cpus:
            command = ["taskset", "-c", cpus, *command]
        with log.open("wb") as output:
            self.child = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=folder
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    def family(self) -> list[int]:
        """Its own id and its children's."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [self.pid, *map(int, children.read_text().split() if children.exists() else [])]

    def text(self) -> str:
        return ANSI.sub("", self.log.read_text(errors="replace"))

    def wait_for(self, pattern: str, seconds: float = 60.0) -> re.Match:
        """Waits until the output matches; says what was there if it ends or stays silent."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.text()):
                return found
            if self.child.poll() is not None:
                raise Failed(f"{self.name} ended with {self.child.returncode}:\n{self.text()[-2000:]}")
            time.sleep(0.01)
        raise Failed(f"{self.name} did not say {pattern!r} within {seconds} s:\n{self.text()[-2000:]}")

    def stop(self, seconds: float = 10.0) -> None:
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


class Ends:
    """A context manager of what `_start` starts: it ends with it, also where starting fails."""

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()


class Stack(Ends):
    """Simulated platform, enclave and, unless it is left out, host. A context manager."""

    def __init__(self, folder: Path, models: Path, *, measurement: str, name="enclave.example", latency_ms=5,
                 host=True, cpus=None, host_cpus=None, platform_cpus=None, threads=None, enclave="", keys=None,
                 tee="sev-snp"):  # fmt: skip
        self.folder, self.models, self.measurement, self.name = folder, models, measurement, name
        self.latency_ms, self.with_host = latency_ms, host
        self.cpus, self.host_cpus, self.platform_cpus = cpus, host_cpus or cpus, platform_cpus
        self.threads, self.extra, self.keys, self.tee = threads, enclave, keys, tee
        self.root = folder / "platform" / "root.pem"
        self.processes: list[Process] = []

    def stop(self) -> None:
        # The enclave before the host: its last seal is the host's to store.
        order = {"enclave": 0, "host": 1}
        for process in sorted(self.processes, key=lambda p: order.get(p.name, 2)):
            process.stop()
        self.processes.clear()

    def _run(self, name: str, arguments: list, cpus=None) -> Process:
        program = name if name != "platform" else "simulated-platform"
        command = [binary(program), *arguments]
        process = Process(name, command, self.folder / f"{name}.log", cpus)
        self.processes.append(process)
        setattr(self, name, process)
        return process

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Unix sockets have short names (108 bytes): a relative one from a folder that may be deep.
        socket = os.path.relpath(self.folder / "agent.sock")
        keys = ["--keys", self.keys] if self.keys else []
        self._run("platform", [
            "--tee", self.tee, "--socket", socket, "--dir", self.folder / "platform", "--measurement", self.measurement,
            "--latency-ms", self.latency_ms, "--control", self.folder / "fault", *keys,
        ], self.platform_cpus).wait_for("SIMULATED")  # fmt: skip
        threads = f"threads = {self.threads}\n" if self.threads else ""
        sessions = f"sessions = {self.threads}\n" if self.threads else ""
        (self.folder / "enclave.toml").write_text(
            f'name = "{self.name}"\nlog_prefix = "{self.name}/log"\n{threads}'
            '[listen]\npublic = "tcp://127.0.0.1:0"\ncontrol = "tcp://127.0.0.1:0"\ntls = "tcp://127.0.0.1:0"\n'
            f'[quote]\nagent = "{socket}"\n{self.extra}'
            f'[runtime]\nlibrary = "{os.path.relpath(LIBRARY)}"\nsha256 = "{library_digest()}"\n'
            f'[models]\nrepository = "{os.path.relpath(self.models)}"\n{sessions}'
        )
        enclave = self._run("enclave", ["--config", self.folder / "enclave.toml"], self.cpus)
        self.public = self._address(enclave, "public")
        self.control = self._address(enclave, "control")
        self.tls = self._address(enclave, "tls")
        self.wait_ready(self.public)
        self.url, self.https = f"http://{self.public}", f"https://{self.tls}"
        if not self.with_host:
            return
        (self.folder / "host.toml").write_text(
            f'listen = "tcp://127.0.0.1:0"\n{threads}'
            f'[enclave]\npublic = "tcp://{self.public}"\ncontrol = "tcp://{self.control}"\ntls = "tcp://{self.tls}"\n'
            f'[store]\npath = "{os.path.relpath(self.folder / "store" / "receipts.sqlite")}"\n'
            f'[collateral]\nfolder = "{os.path.relpath(self.folder / "platform" / "collateral")}"\n'
        )
        host = self._run("host", ["--config", self.folder / "host.toml"], self.host_cpus)
        address = host.wait_for(r'listening address="?(?:tcp://)?([0-9.]+:[0-9]+)')[1]
        self.wait_ready(address)
        # One address for both: the host tells TLS, which it passes through unread, from its own HTTP.
        self.url, self.https = f"http://{address}", f"https://{address}"

    def reference_values(self) -> dict[str, str]:
        """What the guest measures, by check: what whoever built an image would have worked out from it."""
        return json.loads((self.folder / "platform" / "reference-values.json").read_text())

    def _address(self, enclave: Process, name: str) -> str:
        return enclave.wait_for(rf'listening name="{name}" address="?tcp://([0-9.]+:[0-9]+)')[1]

    def wait_ready(self, address: str, seconds: float = 60.0) -> None:
        deadline, last = time.monotonic() + seconds, ""
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://{address}/v2/health/ready", timeout=5):
                    return
            except (urllib.error.URLError, OSError) as error:
                last = str(error)
            for process in self.processes:
                if process.child.poll() is not None:
                    raise Failed(f"{process.name} ended with {process.child.returncode}:\n{process.text()[-2000:]}")
            time.sleep(0.02)
        raise Failed(f"http://{address} is not ready after {seconds} s: {last}")


class Proxy:
    """`touchstone proxy` before a stack on a simulated platform. A context manager."""

    def __init__(self, folder: Path, stack: Stack, policy: Path, *options, cpus: str | None = None):
        self.keep = folder / "kept"
        command = [binary("touchstone"), "proxy", "--listen", "127.0.0.1:0", "--server", stack.https, "--policy", policy]
        command += ["--keep", self.keep, "--trust-simulated-root", stack.root, "--expect-simulated", *options]
        self.process = Process("proxy", command, folder / "proxy.log", cpus)
        try:
            self.address = self.process.wait_for(r"listening.* address=\"?([0-9.]+:[0-9]+)")[1]
        except BaseException:
            self.process.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()


def library_digest() -> str:
    return (ROOT / "measurements" / "onnxruntime" / "library.sha256").read_text().split()[0]


def models_folder() -> Path | None:
    """The larger models that are not in the repository, if they are here."""
    folder = Path(os.environ.get("TOUCHSTONE_MODELS", ROOT.parent / "shared" / "models"))
    return folder if folder.is_dir() else None


def touchstone(*arguments, timeout: float = 120.0) -> subprocess.CompletedProcess:
    command = [str(part) for part in (binary("touchstone"), *arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


def verdict(done: subprocess.CompletedProcess) -> dict:
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise Failed(f"no verdict (exit {done.returncode}): {done.stderr.strip()[-1000:]}") from None


def say(text: str = "", end: str = "\n") -> None:
    print(text, end=end, flush=True)


def die(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
    sys.exit(1)
