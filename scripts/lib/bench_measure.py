"""`scripts/bench measure`: 64 launch digests of one release, beside sev-snp-measure, in one run."""

import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench_common import Machine, fresh
from pyenv import python_with
from stack import ROOT, Failed, binary, say

sys.path.insert(0, str(ROOT / "scripts" / "tests"))
from firmware_images import AMD_SEV, firmware  # noqa: E402

REQUIREMENTS = ROOT / "scripts" / "tests" / "sev-snp-measure-requirements.txt"
VCPUS, FEATURES = [1, 2, 4, 8, 16, 32, 64, 128], [0x1, 0x21]
CPUS = ["EPYC-v4", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa"]
SIZES = {"firmware": 4 << 20, "kernel": 16 << 20, "initrd": 64 << 20}

# One process, everything imported before the clock starts: better than its command, which is started for each digest.
PEER = """
import itertools, json, sys, time
from sevsnpmeasure.guest import calc_launch_digest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS
folder, (vcpus, cpus, features) = sys.argv[1], json.loads(sys.argv[2])
begin = time.perf_counter()
found = [calc_launch_digest(SevMode.SEV_SNP, v, CPU_SIGS[c], folder + "/firmware", folder + "/kernel", folder + "/initrd",
         "quiet", f).hex() for c, f, v in itertools.product(cpus, features, vcpus)]
print(json.dumps({"seconds": time.perf_counter() - begin, "digests": found}))
"""


def run(command: list) -> str:
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{command[0]}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def measure(arguments) -> dict:
    say("building touchstone …")
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "touchstone-cli"], cwd=ROOT, check=True)
    python, folder = python_with("sev-snp-measure", REQUIREMENTS, hashed=True), fresh("measure")
    files(folder)
    machine = Machine().announce()
    ours = [binary("touchstone"), "measure", "snp", "--json", "--cmdline", "quiet", "--vcpus", ",".join(map(str, VCPUS))]
    ours += ["--cpu", ",".join(CPUS), "--guest-features", ",".join(map(hex, FEATURES))]
    for name in SIZES:
        ours += [f"--{name}", folder / name]
    theirs = [python, "-c", PEER, folder, json.dumps([VCPUS, CPUS, FEATURES])]
    times = {"touchstone": [], "sev-snp-measure": []}
    for _ in range(3 if arguments.quick else 7):
        begin = time.perf_counter()
        found = json.loads(run(ours))["measurements"]
        times["touchstone"].append(time.perf_counter() - begin)
        peer = json.loads(run(theirs))
        times["sev-snp-measure"].append(peer["seconds"])
        if [one["snp"]["measurement"] for one in found] != peer["digests"]:
            raise Failed("the launch digests differ")
    say(f"\n{len(found)} launch digests; firmware 4 MiB, kernel 16 MiB, initrd 64 MiB; all agree")
    middle = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, what in (("touchstone", "one run of the command"), ("sev-snp-measure", "one process, its start not counted")):
        say(f"  {name:18}{middle[name] * 1000:10.0f} ms   {what}")
    met = middle["touchstone"] <= 1.0
    say(f"{'met   ' if met else 'MISSED'}  aim: 64 combinations in at most 1 s")
    return {"machine": machine, "seconds": times, "met": met}


def files(folder: Path) -> None:
    data = random.Random(1)
    (folder / "firmware").write_bytes(firmware(SIZES["firmware"], AMD_SEV, (0x810C00, 0x400), 0x80B004, 1))
    for name in ("kernel", "initrd"):
        (folder / name).write_bytes(data.randbytes(SIZES[name]))
