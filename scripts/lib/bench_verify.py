"""`scripts/bench verify`: how fast evidence is judged, beside `sev` and `dcap-qvl`, with ring and with AWS-LC."""

import json
import shutil
import subprocess

from bench_common import WORK, Machine
from stack import ROOT, Failed, binary, say

PROGRAM = "bench-verify"
ROWS = {
    "p384": "one P-384 verification",
    "p256": "one P-256 verification",
    "ed25519": "one Ed25519 verification",
    "sev": "sev (crypto_nossl), no revocation list",
    "snp cold": "SNP evidence, cold, list included",
    "snp warm": "SNP evidence, warm, of one second",
    "snp warm apart": "SNP evidence, warm, a second each",
    "dcap-qvl": "dcap-qvl (ring)",
    "tdx cold": "TDX evidence, cold",
    "tdx warm": "TDX evidence, warm, of one second",
    "tdx warm apart": "TDX evidence, warm, a second each",
    "bundle evidence": "a logged bundle's evidence, cold",
    "bundle cold": "a logged bundle, cold",
    "bundles of one checkpoint": "bundles that share a checkpoint",
}

# What no evidence object within formats.md's limits may cost.
MOST_MS = 50


def verify(arguments) -> dict:
    found, seconds = {}, 1.0 if arguments.quick else 4.0
    for backend in ("ring", "aws-lc-rs"):
        features = "peers" if backend == "ring" else f"peers,{backend}"
        say(f"building {PROGRAM} with {backend} …")
        command = ["cargo", "build", "--release", "--quiet", "-p", PROGRAM, "--features", features]
        subprocess.run(command, cwd=ROOT, check=True)
        # Both before either is run: one run, on a machine that builds nothing.
        shutil.copy2(binary(PROGRAM), WORK / f"{PROGRAM}-{backend}")
    machine = Machine().announce()
    for backend in ("ring", "aws-lc-rs"):
        command = [str(WORK / f"{PROGRAM}-{backend}"), "--seconds", str(seconds)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{PROGRAM}: {done.stderr.strip()[-2000:]}")
        found[backend] = json.loads(done.stdout)
        show(found[backend])
    aims = [line for backend in found for line in aims_of(backend, found[backend])]
    say("")
    for aim in aims:
        say(f"{'met   ' if aim['met'] else 'MISSED'}  {aim['words']}")
    return {"machine": machine, "found": found, "aims": aims}


def show(found: dict) -> None:
    rows, threads = found["rows"], found["threads"]
    say(f"\nwith {found['backend']}{'':32}one thread, µs  (middle)   {threads} threads, a second   ratio, one and all")
    for name, title in ROWS.items():
        row = rows[name]
        peer = rows[{"snp": "sev", "tdx": "dcap-qvl"}.get(name.split()[0], name)]
        ratio = ""
        if peer is not row:
            ratio = f"{peer['us'] / row['us']:10.2f}{row['per_second'] / peer['per_second']:8.2f}"
        say(f"  {title:42}{row['us']:12.1f}{row['us_middle']:10.1f}{row['per_second']:22,.0f}{ratio}")
    say(f"\nthe most that one evidence object costs {'':23}KiB          ms   of {MOST_MS} ms")
    for worst in found["worst"]:
        share = f"{100 * worst['ms'] / MOST_MS:10.1f} %"
        say(f"  {worst['name']:54}{worst['bytes'] / 1024:10,.0f}{worst['ms']:12.2f}{share}")


def aims_of(backend: str, found: dict) -> list[dict]:
    rows = found["rows"]
    us = {name: row["us"] for name, row in rows.items()}
    aims = []

    def ratio(words: str, value: float, least: float) -> None:
        aims.append({"words": f"{backend}: {words}: {value:.2f}", "met": value >= least})

    def most(words: str, value: float, limit: float) -> None:
        aims.append({"words": f"{backend}: {words}: {value:.1f} of {limit:.1f} µs", "met": value <= limit})

    least = 2.5 if backend == "ring" else 5.0
    ratio(f"SNP cold, revocation list included, at least {least} times as fast as sev", us["sev"] / us["snp cold"], least)
    most("SNP warm within 10 % of one P-384 verification", us["snp warm"], us["p384"] * 1.1)
    ratio("TDX cold no slower than dcap-qvl", us["dcap-qvl"] / us["tdx cold"], 1.0)
    ratio("TDX warm at least 8 times as fast as dcap-qvl", us["dcap-qvl"] / us["tdx warm"], 8.0)
    limit = 1.2 * us["bundle evidence"] + 2 * us["ed25519"]
    most("a logged bundle at most 1.2 times its evidence and two Ed25519", us["bundle cold"], limit)
    rate = rows["bundles of one checkpoint"]["per_second"]
    words = f"{backend}: bundles of one checkpoint, at least 25,000 a second on {found['threads']} threads: {rate:,.0f}"
    aims.append({"words": words, "met": rate >= 25_000})
    slowest = max(found["worst"], key=lambda worst: worst["ms"])
    words = f"{backend}: the most that one evidence object costs ({slowest['name']}): {slowest['ms']:.1f} of {MOST_MS} ms"
    aims.append({"words": words, "met": slowest["ms"] <= MOST_MS})
    return aims
