"""Benchmarks: what a proven answer costs beside the same answer unproven. Standard library alone.

    scripts/bench serve [--peers] [--quick] [--only MODEL] [--json FILE]    servers, one after the other, one run
    scripts/bench receipt [--json FILE]                 commitments and receipt beyond one signature
    scripts/bench memory [--answers N] [--json FILE]    the resident set over many answers
    scripts/bench session [--quick] [--json FILE]       attested connections beside plain TLS; the first verified answer
    scripts/bench relay [--quick] [--json FILE]         the host's passing through of TLS, beside none and beside nginx's
    scripts/bench relay-http [--quick] [--json FILE]    the host's relaying of HTTP, beside nginx's and HAProxy's
    scripts/bench proxy [--quick] [--json FILE]         what `touchstone proxy` adds to each request
    scripts/bench ohttp [--quick] [--json FILE]         what a sealed request costs beyond a plain one
    scripts/bench verify [--quick] [--json FILE]        judgements beside sev and dcap-qvl, cold and warm, ring and AWS-LC
    scripts/bench measure [--quick] [--json FILE]       64 launch digests of one release, beside sev-snp-measure

Everything runs on this machine, so trust ratios more than figures. With four cores or more the servers
are pinned to one half and the load generator, with the simulated platform, to the other. CPU time is the
servers' alone (user and system, from /proc): what the load generator needs is told apart.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import bench_http
import bench_measure
import bench_verify
import bench_wire
from bench_common import MEASUREMENT, NONCE, WORK, Machine, Workload, build, figures, free_port, fresh, one_model, workloads
from stack import LIBRARY, ROOT, Failed, Process, Stack, binary, die, say

QUOTED_LATENCY_MS = 5


class Serve:
    def __init__(self, arguments):
        self.quick, self.peers, self.only = arguments.quick, arguments.peers, arguments.only
        self.seconds = 2.0 if self.quick else 6.0
        self.machine = Machine()
        self.rows: list[dict] = []
        self.keys = WORK / "keys"

    def load(self, server: str, workload: Workload, pids: list[int], connections=None, headers=(), rate=None, seconds=None) -> dict:
        options = ["--server", server, *workload.write_body(WORK), "--seconds", seconds or self.seconds]
        options += ["--connections", connections or workload.connections, "--threads", self.machine.load_threads]
        options += ["--warm-up", 0.5 if self.quick else 1.0]
        if rate:
            options += ["--rate", rate]
        for header in headers:
            options += ["--header", header]
        for pid in pids:
            options += ["--server-pid", pid]
        return figures("load", *options, cpus=self.machine.load)

    def row(self, workload: Workload, name: str, found: dict) -> None:
        self.rows.append({"workload": workload.title, "row": name} | found)
        errors = f"   {found['errors']} ERRORS {found['outcomes']}" if found.get("errors") else ""
        p50 = f"{found['p50_us'] / 1000:9.2f}{found['p99_us'] / 1000:10.2f}" if "p50_us" in found else " " * 19
        say(
            f"  {name:38}{found.get('connections', ''):>6}{found['per_second']:11,.0f}{found['per_cpu_second']:11,.0f}"
            f"{self.ratio(workload, found):>9}{p50}{errors}"
        )

    def find(self, workload: Workload, name: str) -> dict | None:
        return next((r for r in self.rows if r["workload"] == workload.title and r["row"] == name), None)

    def ratio(self, workload: Workload, found: dict) -> str:
        bare = self.find(workload, "bare hyper + ort")
        return f"{found['per_cpu_second'] / bare['per_cpu_second']:.2f}" if bare else ""

    def in_process(self, workload: Workload) -> None:
        options = ["--library", LIBRARY, "--model", workload.file, *workload.write_inputs(WORK)]
        options += ["--threads", self.machine.threads, "--seconds", self.seconds]
        self.row(workload, "in-process ort, no server", figures("inprocess", *options, cpus=self.machine.servers))

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
        limits = "[limits]\nunacknowledged_bytes = 4294967296\n[log]\nfilter = \"warn,enclave::run=info\"\n"
        return Stack(
            fresh("stack"), one_model(workload), measurement=MEASUREMENT, latency_ms=latency_ms, host=host, cpus=self.machine.servers,
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
                found = self.load(server, workload, pids, headers=[f"Touchstone: require=({names}), {NONCE}"])
                self.row(workload, f"{names.split()[0]}, through the host", found)

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
            self.row(workload, "FastAPI + onnxruntime", self.load(f"127.0.0.1:{port}", workload, server.family()))
        finally:
            server.stop()

    def run(self) -> dict:
        described = self.machine.announce()
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
    found = figures("receipt-cost", cpus=(Machine().servers or "").split(",")[0])
    met = found["beyond_signature_us"] <= 12
    say(f"one answer's commitments and receipt ({found['receipt_bytes']} bytes)  {found['whole_us']:8.2f} µs")
    say(f"one Ed25519 signature of as many bytes                    {found['signature_us']:8.2f} µs")
    say(f"beyond the signature                                      {found['beyond_signature_us']:8.2f} µs")
    say(f"{'met   ' if met else 'MISSED'}  aim: at most 12 µs beyond one signature")
    return {"machine": Machine().describe(), "figures": found, "met": met}


def memory(arguments) -> dict:
    build("enclave", "host", "touchstone-testkit", "bench-tools")
    workload = workloads(True)[0]
    run = Serve(argparse.Namespace(quick=True, peers=False, only=None))
    run.seconds, step, samples = 600.0, arguments.answers // 10, []
    header = f"Touchstone: require=(logged signed), {NONCE}"
    with run.stack(workload, 5, host=True) as stack:
        server = stack.url.removeprefix("http://")
        say(f"{'answers':>9}{'enclave MiB':>13}{'host MiB':>11}   resident; in brackets what is not pages of files")
        for done in range(0, arguments.answers + 1, step):
            if done:
                options = ["--server", server, *workload.write_body(WORK), "--seconds", 600]
                options += ["--connections", 32, "--warm-up", 0, "--answers", step, "--header", header]
                found = figures("load", *options)
                if found["errors"]:
                    raise Failed(f"errors under load: {found['outcomes']}")
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
    four = commands.add_parser("session", help="handshake and attestation; the first verified answer")
    five = commands.add_parser("relay", help="what the host's passing through of TLS costs, beside nginx")
    six = commands.add_parser("proxy", help="what `touchstone proxy` adds to each request")
    seven = commands.add_parser("verify", help="judgements beside sev and dcap-qvl")
    eight = commands.add_parser("measure", help="launch digests beside sev-snp-measure")
    nine = commands.add_parser("ohttp", help="what a sealed request costs beyond a plain one")
    ten = commands.add_parser("relay-http", help="what the host's relaying of HTTP costs, beside nginx and HAProxy")
    for command in (four, five, six, seven, eight, nine, ten):
        command.add_argument("--quick", action="store_true", help="a third of the time for each row")
    for command in (one, two, three, four, five, six, seven, eight, nine, ten):
        command.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 16384), hard), hard))
    WORK.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    try:
        subcommands = {"serve": serve, "receipt": receipt, "memory": memory}
        subcommands |= {"session": bench_wire.session, "relay": bench_wire.relay, "proxy": bench_wire.proxy, "ohttp": bench_wire.ohttp}
        subcommands |= {"relay-http": bench_http.relay_http}
        subcommands |= {"verify": bench_verify.verify, "measure": bench_measure.measure}
        found = subcommands[arguments.command](arguments)
    except (Failed, subprocess.CalledProcessError) as error:
        die(f"scripts/bench: {error}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
