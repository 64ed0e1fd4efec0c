"""Benchmarks: what a proven answer costs beside the same answer unproven. Standard library alone.

    scripts/bench serve [--peers] [--quick] [--only MODEL] [--json FILE]    servers, one after the other, one run
    scripts/bench receipt [--json FILE]                 commitments and receipt beyond one signature
    scripts/bench memory [--answers N] [--json FILE]    the resident set over many answers

Everything runs on this machine, so trust ratios more than figures. With four cores or more the servers
are pinned to one half and the load generator, with the simulated platform, to the other. CPU time is the
servers' alone (user and system, from /proc): what the load generator needs is told apart.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from stack import LIBRARY, ROOT, Failed, Process, Stack, binary, die, models_folder, say

sys.path.insert(0, str(ROOT / "attestation-verifier" / "testkit" / "python"))
from second_opinion import npy  # noqa: E402

WORK = ROOT / "target" / "bench"
MEASUREMENT = "be" * 48
NONCE = "nonce=:" + "A" * 42 + "8=:"  # 32 bytes; the enclave need not find it fresh
QUOTED_LATENCY_MS = 5
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


def build(*packages: str) -> None:
    # One package at a time: features of one crate's dependencies must not leak into the measured program.
    for package in packages:
        say(f"building {package} …")
        subprocess.run(["cargo", "build", "--release", "--quiet", "-p", package], cwd=ROOT, check=True)
    subprocess.run([ROOT / "scripts" / "fetch-onnxruntime"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Serve:
    def __init__(self, arguments):
        self.quick, self.peers, self.only = arguments.quick, arguments.peers, arguments.only
        self.seconds = 2.0 if self.quick else 6.0
        self.machine = Machine()
        self.rows: list[dict] = []
        self.keys = WORK / "keys"

    def load(self, server: str, workload: Workload, pids: list[int], connections=None, headers=(), rate=None, seconds=None) -> dict:
        command = [binary("load"), "--server", server, *workload.write_body(WORK), "--seconds", seconds or self.seconds]
        command += ["--connections", connections or workload.connections, "--threads", self.machine.load_threads]
        command += ["--warm-up", 0.5 if self.quick else 1.0]
        if rate:
            command += ["--rate", rate]
        for header in headers:
            command += ["--header", header]
        for pid in pids:
            command += ["--server-pid", pid]
        if self.machine.load:
            command = ["taskset", "-c", self.machine.load, *command]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"the load generator failed: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def row(self, workload: Workload, name: str, figures: dict) -> None:
        self.rows.append({"workload": workload.title, "row": name} | figures)
        errors = f"   {figures['errors']} ERRORS {figures['outcomes']}" if figures.get("errors") else ""
        p50 = f"{figures['p50_us'] / 1000:9.2f}{figures['p99_us'] / 1000:10.2f}" if "p50_us" in figures else " " * 19
        say(
            f"  {name:38}{figures.get('connections', ''):>6}{figures['per_second']:11,.0f}{figures['per_cpu_second']:11,.0f}"
            f"{self.ratio(workload, figures):>9}{p50}{errors}"
        )

    def find(self, workload: Workload, name: str) -> dict | None:
        return next((r for r in self.rows if r["workload"] == workload.title and r["row"] == name), None)

    def ratio(self, workload: Workload, figures: dict) -> str:
        bare = self.find(workload, "bare hyper + ort")
        return f"{figures['per_cpu_second'] / bare['per_cpu_second']:.2f}" if bare else ""

    def in_process(self, workload: Workload) -> None:
        command = [binary("inprocess"), "--library", LIBRARY, "--model", workload.file]
        command += ["--threads", self.machine.threads, "--seconds", self.seconds]
        for name, datatype, shape, raw in workload.inputs:
            path = WORK / f"{workload.model}.{name}"
            path.write_bytes(raw)
            command += ["--input", f"{name}:{datatype}:{','.join(map(str, shape))}:{path}"]
        if self.machine.servers:
            command = ["taskset", "-c", self.machine.servers, *command]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"in-process: {done.stderr.strip()}")
        self.row(workload, "in-process ort, no server", json.loads(done.stdout))

    def bare(self, workload: Workload) -> tuple[Process, str]:
        port = free_port()
        command = [binary("bare-server"), "--listen", f"127.0.0.1:{port}", "--library", LIBRARY]
        command += ["--threads", self.machine.threads, "--model", f"{workload.model}={workload.file}"]
        server = Process("bare-server", command, WORK / "bare-server.log", self.machine.servers)
        server.wait_for("listening")
        return server, f"127.0.0.1:{port}"

    def signed_beside_bare(self, workload: Workload, stack: Stack) -> None:
        """The ratio that matters most, in turns, so that a busy moment of the machine hurts both alike."""
        server, address = self.bare(workload)
        header = f"Touchstone: require=(signed), {NONCE}"
        pids, enclave = [server.pid], [stack.enclave.pid]

        def turns(rate) -> tuple[dict, dict]:
            # Short turns, many of them: neighbours on the machine come and go.
            bare, signed, seconds = [], [], self.seconds / 2
            for _ in range(3 if self.quick else 7):
                bare.append(self.load(address, workload, pids, rate=rate, seconds=seconds))
                signed.append(self.load(stack.public, workload, enclave, headers=[header], rate=rate, seconds=seconds))
            return tuple(sorted(r, key=lambda f: f["per_cpu_second"])[len(r) // 2] for r in (bare, signed))

        try:
            bare, signed = turns(None)
            self.row(workload, "bare hyper + ort", bare)
            self.row(workload, "signed", signed)
            # A server that has to keep up with a faster client is woken less often for each answer: the same load on
            # both tells what the receipts cost.
            bare, signed = turns(signed["per_second"] * 0.7)
            self.row(workload, "bare, at 0.7 of signed's rate", bare)
            self.row(workload, "signed, at the same rate", signed)
        finally:
            server.stop()

    def stack(self, workload: Workload, latency_ms: float, host: bool) -> Stack:
        folder = WORK / "stack"
        shutil.rmtree(folder, ignore_errors=True)
        models = WORK / "models" / workload.model
        (models / workload.model / "1").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(workload.file, models / workload.model / "1" / "model.onnx")
        limits = "[limits]\nunacknowledged_bytes = 4294967296\n[log]\nfilter = \"warn,enclave::run=info\"\n"
        return Stack(
            folder, models, measurement=MEASUREMENT, latency_ms=latency_ms, host=host, cpus=self.machine.servers,
            platform_cpus=self.machine.load, threads=self.machine.threads, enclave=limits, keys=self.keys,
        )  # fmt: skip

    def ours(self, workload: Workload) -> None:
        for latency in (0, 5, 20):
            with self.stack(workload, latency, host=False) as stack:
                # Ended after the enclave, whose last batch it takes.
                drain = [binary("drain"), "--control", stack.control]
                stack.processes.append(Process("drain", drain, WORK / "drain.log", self.machine.load))
                self.one_enclave(workload, stack, latency)
        with self.stack(workload, 5, host=True) as stack:
            server, pids = stack.url.removeprefix("http://"), [stack.enclave.pid, stack.host.pid]
            for names in ("signed", "logged signed"):
                figures = self.load(server, workload, pids, headers=[f"Touchstone: require=({names}), {NONCE}"])
                self.row(workload, f"{names.split()[0]}, through the host", figures)

    def one_enclave(self, workload: Workload, stack: Stack, latency: int) -> None:
        pids, server = [stack.enclave.pid], stack.public

        def ask(names, *more, connections=None, rate=None):
            headers = [f"Touchstone: require=({names}), {NONCE}", *more]
            return self.load(server, workload, pids, connections, headers, rate)

        small = workload.model == "digits_mlp_plain"
        many = 1024 if small else workload.connections
        if latency == 0:
            self.signed_beside_bare(workload, stack)
            if small:
                self.row(workload, "signed, many connections", ask("signed", connections=many))
        self.row(workload, f"logged, quotes of {latency} ms", ask("logged signed"))
        if latency == QUOTED_LATENCY_MS:
            # Fewer connections than the enclave's queue for quotes is long, and each waits for its quote.
            self.row(workload, f"quoted, quotes of {latency} ms, waits", ask("quoted signed", "Prefer: wait=10", connections=16))
        if latency == 20:
            sealed = ask("logged signed", "Prefer: wait=10", connections=many)
            self.row(workload, "logged, 20 ms, waits for the seal", sealed)
            # So many connections that are never idle wait for each other: latency is theirs, not the seal's.
            paced = ask("logged signed", "Prefer: wait=10", connections=many, rate=sealed["per_second"] / 2)
            self.row(workload, "the same, at half of that rate", paced)

    def fastapi(self, workload: Workload) -> None:
        if workload.encoding != "json":
            return
        from pyenv import python_with

        peers = ROOT / "scripts" / "bench-tools" / "peers"
        python, port = python_with("peers", peers / "requirements.txt"), free_port()
        os.environ["BENCH_MODEL"] = str(workload.file)
        command = [python, "-m", "uvicorn", "--app-dir", peers, "fastapi_app:app", "--port", port]
        command += ["--workers", self.machine.threads, "--no-access-log"]
        server = Process("fastapi", command, WORK / "fastapi.log", self.machine.servers)
        try:
            for _ in range(self.machine.threads):
                server.wait_for("Application startup complete")
            time.sleep(2)
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
            self.row(workload, "FastAPI + onnxruntime", self.load(f"127.0.0.1:{port}", workload, [server.pid, *map(int, children)]))
        finally:
            server.stop()

    def run(self) -> dict:
        described = self.machine.describe()
        say("\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in described.items()))
        for workload in workloads(self.quick, self.only):
            say(f"\n{workload.title}")
            say(f"  {'':38}{'conns':>6}{'answers/s':>11}{'/CPU-s':>11}{'of bare':>9}{'p50 ms':>9}{'p99 ms':>10}")
            self.in_process(workload)
            self.ours(workload)
            if self.peers:
                self.fastapi(workload)
        aims = list(self.aims())
        say("\naims")
        for aim in aims:
            say(f"  {'met   ' if aim['met'] else 'MISSED'}  {aim['aim']}: {aim['found']}")
        say(
            "\nWhat limits it: one thread signs each receipt with Ed25519 when it answers, which for small models costs\n"
            "about as much CPU as the whole bare server (`scripts/bench receipt` has the figures); `quoted` is limited by\n"
            "the quote source, which like the hardware makes one quote at a time, and refuses what does not fit into its\n"
            "queue (503). N connections that are never idle see a latency of N divided by the answers a second, at least."
        )
        return {"machine": described, "rows": self.rows, "aims": aims}

    def aims(self):
        for workload in dict.fromkeys(row["workload"] for row in self.rows):
            rows = {row["row"]: row for row in self.rows if row["workload"] == workload}
            bare, signed = rows["bare hyper + ort"], rows["signed"]
            aim = 0.97 if workload.startswith("minilm") else 0.6
            ratio = signed["per_cpu_second"] / bare["per_cpu_second"]
            yield {"aim": f"{workload}: signed ≥ {aim} of bare, per CPU-second, both never idle", "found": f"{ratio:.2f}", "met": ratio >= aim}
            ratio = rows["signed, at the same rate"]["per_cpu_second"] / rows["bare, at 0.7 of signed's rate"]["per_cpu_second"]
            yield {"aim": f"{workload}: signed ≥ {aim} of bare, per CPU-second, at one rate", "found": f"{ratio:.2f}", "met": ratio >= aim}
            sealed = rows["logged, 20 ms, waits for the seal"]
            base = rows.get("signed, many connections")
            if base is None:
                continue
            for unit, key in (("per second", "per_second"), ("per CPU-second", "per_cpu_second")):
                ratio = sealed[key] / base[key]
                found = f"{ratio:.2f}"
                name = f"{workload}: logged and sealed at 20 ms ≥ 0.8 of signed, {unit}, {sealed['connections']} connections"
                yield {"aim": name, "found": found, "met": ratio >= 0.8}
            for name, row in (("never idle", sealed), ("at half of that rate", rows["the same, at half of that rate"])):
                quotes = row["p50_us"] / 20_000
                aim = f"{workload}: p50 to the seal ≤ 2.2 quote times, {row['connections']} connections {name}"
                yield {"aim": aim, "found": f"{quotes:.2f}", "met": quotes <= 2.2}


def serve(arguments) -> dict:
    build("enclave", "host", "touchstone-testkit", "bench-tools")
    return Serve(arguments).run()


def receipt(arguments) -> dict:
    build("bench-tools")
    command = [str(binary("receipt-cost"))]
    if cpus := Machine().servers:
        command = ["taskset", "-c", cpus.split(",")[0], *command]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    met = figures["beyond_signature_us"] <= 12
    say(f"one answer's commitments and receipt ({figures['receipt_bytes']} bytes)  {figures['whole_us']:8.2f} µs")
    say(f"one Ed25519 signature of as many bytes                    {figures['signature_us']:8.2f} µs")
    say(f"beyond the signature                                      {figures['beyond_signature_us']:8.2f} µs")
    say(f"{'met   ' if met else 'MISSED'}  aim: at most 12 µs beyond one signature")
    return {"machine": Machine().describe(), "figures": figures, "met": met}


def memory(arguments) -> dict:
    build("enclave", "host", "touchstone-testkit", "bench-tools")
    workload = workloads(True)[0]
    run = Serve(argparse.Namespace(quick=True, peers=False, only=None))
    run.seconds, step, samples = 600.0, arguments.answers // 10, []
    headers = [f"Touchstone: require=(logged signed), {NONCE}"]
    with run.stack(workload, 5, host=True) as stack:
        server = stack.url.removeprefix("http://")
        say(f"{'answers':>9}{'enclave MiB':>13}{'host MiB':>11}   resident; in brackets what is not pages of files")
        for done in range(0, arguments.answers + 1, step):
            if done:
                command = [binary("load"), "--server", server, *workload.write_body(WORK), "--seconds", 600]
                command += ["--connections", 32, "--warm-up", 0, "--answers", step, "--header", headers[0]]
                figures = json.loads(subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout)
                if figures["errors"]:
                    raise Failed(f"errors under load: {figures['outcomes']}")
                time.sleep(1.0)  # the last seal, and the host's acknowledgement
            sample = {"answers": done}
            for name in ("enclave", "host"):
                pid = getattr(stack, name).pid
                sample |= {name: resident(pid, "VmRSS"), f"{name}_anonymous": resident(pid, "RssAnon")}
            samples.append(sample)
            say(f"{done:9,}" + "".join(f"{sample[n]:10.1f} ({sample[f'{n}_anonymous']:.1f})" for n in ("enclave", "host")))
    # The first fifth warms allocators, caches and connection buffers up.
    growth = {name: samples[-1][f"{name}_anonymous"] - samples[2][f"{name}_anonymous"] for name in ("enclave", "host")}
    met = all(value <= 8.0 for value in growth.values())
    say("growth after the first fifth: " + ", ".join(f"{name} {value:+.1f} MiB" for name, value in growth.items()))
    say("met     memory is flat" if met else "MISSED  memory grows by more than 8 MiB")
    return {"machine": run.machine.describe(), "samples": samples, "growth_mib": growth, "met": met}


def resident(pid: int, kind: str) -> float:
    line = next(l for l in open(f"/proc/{pid}/status") if l.startswith(kind + ":"))
    return int(line.split()[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("serve")
    one.add_argument("--peers", action="store_true", help="FastAPI + onnxruntime too")
    one.add_argument("--quick", action="store_true", help="2 seconds a row instead of 6, fewer rows")
    one.add_argument("--only", metavar="MODEL", help="this model alone")
    two = commands.add_parser("receipt")
    three = commands.add_parser("memory")
    three.add_argument("--answers", type=int, default=100_000)
    for command in (one, two, three):
        command.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 16384), hard), hard))
    WORK.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    try:
        figures = {"serve": serve, "receipt": receipt, "memory": memory}[arguments.command](arguments)
    except (Failed, subprocess.CalledProcessError) as error:
        die(f"scripts/bench: {error}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
