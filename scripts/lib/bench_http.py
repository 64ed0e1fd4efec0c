"""`scripts/bench relay-http`: what relaying HTTP costs the host, beside nginx and HAProxy as Debian packages them, in one run."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from bench_common import WORK, Machine
from nginx import fetched
from stack import ROOT, Failed, say

LEAST = 0.8  # of the better peer


def program(name: str) -> Path | None:
    """A peer's program: named by the environment, installed, or unpacked from Debian's package."""
    found = os.environ.get(name.upper()) or shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    try:
        path = Path(found) if found else fetched(WORK / name, name) / "usr" / "sbin" / name
        said = subprocess.run([path, "-v"], capture_output=True, text=True)
    except (Failed, OSError) as error:
        say(f"SKIPPED: {name} is NOT measured beside the host: {error}")
        return None
    if said.returncode:
        say(f"SKIPPED: {name} is NOT measured beside the host, as it does not run here: {said.stderr.strip()[-300:]}")
        return None
    say(f"{name}: {(said.stdout + said.stderr).strip().splitlines()[0]}")
    return path


def relay_http(arguments) -> dict:
    WORK.mkdir(parents=True, exist_ok=True)
    machine = Machine().announce()
    peers = {name.upper(): str(path) for name in ("nginx", "haproxy") if (path := program(name))}
    say("building host …")
    command = ["cargo", "bench", "--quiet", "-p", "host", "--bench", "relay"]
    subprocess.run([*command, "--no-run"], cwd=ROOT, check=True)
    say(
        f"\n{'requests to one enclave, kept connections':42}{'relay':>9}{'conns':>7}{'threads':>9}{'each s':>10}{'CPU µs':>9}{'kernel':>8}"
        f"{'p50 µs':>9}{'p99 µs':>9}{'of CPU':>8}{'of p99':>8}"
    )
    options = ["json", *(["quick"] if arguments.quick else [])]
    environment = {key: value for key, value in os.environ.items() if key not in ("NGINX", "HAPROXY")} | peers
    rows = []
    with subprocess.Popen([*command, "--", *options], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout:
            rows.append(json.loads(line))
            show(rows[-1])
    if running.returncode:
        raise Failed(f"the benchmark ended with {running.returncode}")
    say(f"\naims: ≥ {LEAST} of the better of {' and '.join(name.lower() for name in peers) or 'nobody'}, in rounds that lie beside each other")
    if len(peers) < 2:
        say("SKIPPED: with " + ("one peer alone" if peers else "no peer at all") + " the aim is not judged in full")
    aims = [aim for row in rows if "cpu_ratio" in row and row["relay"] == "host" for aim in aims_of(row)]
    for aim in aims:
        say(f"  {'met   ' if aim['met'] else 'MISSED'}  {aim['aim']}: {aim['found']:.2f}")
    return {"machine": machine | {"peers": peers}, "rows": rows, "aims": aims}


def show(row: dict) -> None:
    title = f"{row['case']}: {row['bytes_in']:,} bytes in, {row['bytes_out']:,} out"
    ratios = f"{row['cpu_ratio']:8.2f}{row['p99_ratio']:8.2f}" if "cpu_ratio" in row else ""
    say(
        f"  {title:40}{row['relay']:>9}{row['connections']:>7}{row['threads']:>9}{row['per_second']:10,.0f}{row['cpu_us']:9.1f}"
        f"{row['kernel_us']:8.1f}{row['p50_us']:9,.0f}{row['p99_us']:9,.0f}{ratios}"
    )


def aims_of(row: dict) -> list[dict]:
    words = {"cpu_ratio": "requests for a second of CPU", "p99_ratio": "p99"}
    return [{"aim": f"{row['case']}: {words[key]}", "found": row[key], "met": row[key] >= LEAST} for key in words]
