"""What the benchmarks share: models and requests, the machine and how it is divided, programs that print figures."""

import json
import os
import platform
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from stack import ROOT, Failed, binary, models_folder, say

sys.path.insert(0, str(ROOT / "attestation-verifier" / "testkit" / "python"))
from second_opinion import npy  # noqa: E402

WORK = ROOT / "target" / "bench"
MEASUREMENT = "be" * 48
NONCE = "nonce=:" + "A" * 42 + "8=:"  # 32 bytes; the enclave need not find it fresh
DATATYPES = {"<f4": "FP32", "<i8": "INT64"}


@dataclass
class Workload:
    """A model, and one request for it as JSON or in the binary extension."""

    model: str
    file: Path
    encoding: str
    inputs: list  # (name, datatype, shape, raw bytes)
    connections: int

    @property
    def title(self) -> str:
        return f"{self.model}, {self.encoding}"

    def write_body(self, folder: Path) -> list[str]:
        """Writes the request's body; returns the load generator's options for it."""
        described, tail = [], b""
        for name, datatype, shape, raw in self.inputs:
            item = {"name": name, "shape": shape, "datatype": datatype}
            if self.encoding == "binary":
                item["parameters"], tail = {"binary_data_size": len(raw)}, tail + raw
            else:
                code = {"FP32": "f", "INT64": "q"}[datatype]
                item["data"] = list(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))
            described.append(item)
        question = {"inputs": described}
        if self.encoding == "binary":
            question["parameters"] = {"binary_data_output": True}
        header = json.dumps(question).encode()
        path = folder / f"{self.model}.{self.encoding}"
        path.write_bytes(header + tail)
        options = ["--path", f"/v2/models/{self.model}/infer", "--body", str(path)]
        return options + (["--header-length", str(len(header))] if self.encoding == "binary" else [])

    def write_inputs(self, folder: Path) -> list[str]:
        """Writes each tensor's bytes; returns the options of programs that make the request themselves."""
        options = []
        for name, datatype, shape, raw in self.inputs:
            path = folder / f"{self.model}.{name}"
            path.write_bytes(raw)
            options += ["--input", f"{name}:{datatype}:{','.join(map(str, shape))}:{path}"]
        return options


def one_row(path: Path) -> tuple:
    descr, shape, raw = npy.read(path)
    size = len(raw) // shape[0]
    return DATATYPES[descr], [1, *shape[1:]], raw[:size]


def workloads(quick: bool, only: str | None = None) -> list[Workload]:
    folder = models_folder()
    if folder and (folder / "digits_mlp_plain.onnx").exists():
        model, rows = folder / "digits_mlp_plain.onnx", folder / "digits_mlp_plain_x.npy"
    else:
        # The repository's own, smaller model of that name: good for ratios, not for comparison with other figures.
        data = ROOT / "enclave" / "tests" / "data"
        model, rows = data / "models" / "digits_mlp_plain" / "1" / "model.onnx", data / "held-out" / "digits_mlp_plain_x.npy"
        say("note: TOUCHSTONE_MODELS names no folder with digits_mlp_plain.onnx; measuring the test model of that name")
    mlp = [("X", *one_row(rows))]
    found = [Workload("digits_mlp_plain", model, encoding, mlp, 64) for encoding in ("json", "binary")]
    minilm = folder / "minilm" if folder else None
    if minilm and (minilm / "model.onnx").exists():
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = [(name, *one_row(minilm / f"minilm_{name}.npy")) for name in names]
        found.append(Workload("minilm", minilm / "model.onnx", "binary", inputs, 16))
        if not quick:
            found.append(Workload("minilm", minilm / "model.onnx", "json", inputs, 16))
    else:
        say("SKIPPED: minilm: TOUCHSTONE_MODELS names no folder with minilm/model.onnx")
    return [workload for workload in found if only in (None, workload.model)]


class Machine:
    def __init__(self):
        cores = sorted(os.sched_getaffinity(0))
        half = len(cores) // 2
        pinned = len(cores) >= 4 and shutil.which("taskset") is not None
        self.cores = len(cores)
        # Where a relay has a place of its own, it takes half of the servers'.
        self.far, self.between = (",".join(map(str, part)) if pinned else None for part in (cores[: half // 2], cores[half // 2 : half]))
        self.servers = ",".join(map(str, cores[:half])) if pinned else None
        self.load = ",".join(map(str, cores[half:])) if pinned else None
        self.threads = half if pinned else max(1, len(cores) - 1)
        self.load_threads = len(cores) - half if pinned else max(1, half)

    def describe(self) -> dict:
        model = next((l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
        commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
        return {
            "cpu": model, "cores": self.cores, "kernel": platform.release(), "load_average_before": os.getloadavg()[0],
            "server_cpus": self.servers or "not pinned", "load_cpus": self.load or "not pinned",
            "server_threads": self.threads, "onnxruntime": "1.31.1", "commit": commit.stdout.strip() or "unknown",
        }  # fmt: skip

    def announce(self) -> dict:
        described = self.describe()
        say("\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in described.items()))
        return described


def build(*packages: str) -> None:
    # One package at a time: features of one crate's dependencies must not leak into the measured program.
    for package in packages:
        say(f"building {package} …")
        subprocess.run(["cargo", "build", "--release", "--quiet", "-p", package], cwd=ROOT, check=True)
    subprocess.run([ROOT / "scripts" / "fetch-onnxruntime"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def one_model(workload: Workload) -> Path:
    """A repository with this model alone."""
    models = WORK / "models" / workload.model
    (models / workload.model / "1").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(workload.file, models / workload.model / "1" / "model.onnx")
    return models


def fresh(name: str) -> Path:
    """An empty folder."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def figures(program: str, *arguments, cpus: str | None = None) -> dict:
    """Runs a load program to its end; what it printed."""
    command = [str(part) for part in (binary(program), *arguments)]
    if cpus:
        command = ["taskset", "-c", cpus, *command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{program}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)
