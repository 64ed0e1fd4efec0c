"""Launch digests of `touchstone measure snp` beside those of sev-snp-measure, over a grid. Each computes from the same files.

    sev_snp_measure_test.py --touchstone PROGRAM --real FOLDER --work FOLDER

The firmware is two real images' last pages, and images made here, with several layouts.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

from firmware_images import AMD_SEV, CPUID_FIRST, NO_HASHES, WITH_CAA, firmware
from sevsnpmeasure.guest import calc_launch_digest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmm_types import VMMType


def images(real: Path, work: Path) -> list[tuple[str, Path, bool]]:
    """Name, file, and whether it looks for the hashes of a kernel."""
    found = [("real AmdSev", real / "ovmf_AmdSev_suffix.bin", True), ("real OvmfX64", real / "ovmf_OvmfX64_suffix.bin", False)]
    made = {
        "AmdSev, 64 KiB": (65536, AMD_SEV, (0x810C00, 0x400), 0x80B004, 1),
        "with a calling area": (131072, WITH_CAA, (0x810F50, 0xB0), 0x80B004, 2),
        "CPUID first, 512 KiB": (524288, CPUID_FIRST, (0x20000, 0x1000), 0x12F34, 3),
        "no hashes": (65536, NO_HASHES, None, 0x80B004, 4),
    }
    for name, (size, sections, hash_table, reset, seed) in made.items():
        path = work / f"firmware-{seed}"
        path.write_bytes(firmware(size, sections, hash_table, reset, seed))
        found.append((name, path, hash_table is not None))
    return found


def boots(work: Path) -> list[tuple]:
    """Kernel, initrd and command line: files and text, None where there is none."""
    data, kernel, initrd, empty = random.Random(5), work / "kernel", work / "initrd", work / "empty"
    kernel.write_bytes(data.randbytes(100_001))
    initrd.write_bytes(data.randbytes(300_000))
    empty.write_bytes(b"")
    line = "console=ttyS0 init=/init panic=1 " + "x=ä " * 500
    return [(None, None, None), (kernel, None, None), (kernel, None, "quiet"), (kernel, initrd, None), (kernel, empty, "q"),
            (kernel, initrd, line)]  # fmt: skip


def ours(program: Path, image: Path, boot: tuple, vmm: str, vcpus: list, cpus: list, features: list) -> dict:
    command = [program, "measure", "snp", "--firmware", image, "--vmm", vmm, "--json"]
    command += ["--vcpus", ",".join(map(str, vcpus)), "--guest-features", ",".join(map(hex, features))]
    for option, value in zip(("--kernel", "--initrd", "--cmdline"), boot):
        command += [option, value] if value is not None else []
    command += ["--cpu", ",".join(cpus)] if cpus != ["any"] else []
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"exit {done.returncode}: {done.stderr}")
    found = [measurement["snp"] for measurement in json.loads(done.stdout)["measurements"]]
    return {(m["vcpus"], m["cpu"], int(m["guest_features"], 16)): m["measurement"] for m in found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--touchstone", "--real", "--work"):
        parser.add_argument(name, type=Path, required=True)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    vcpus, features = [1, 2, 5], [0x1, 0x21]
    compared, digests, differ = 0, set(), 0
    for vmm in VMMType:
        cpus = list(CPU_SIGS) if vmm == VMMType.QEMU else ["any"]
        for (name, image, hashes), boot in itertools.product(images(arguments.real, arguments.work), boots(arguments.work)):
            if boot[0] and (vmm != VMMType.QEMU or not hashes):
                continue
            found = ours(arguments.touchstone, image, boot, vmm.name.lower(), vcpus, cpus, features)
            assert len(found) == len(vcpus) * len(cpus) * len(features)
            for (count, cpu, feature), digest in found.items():
                kernel, initrd, line = (str(part) if part is not None else None for part in boot)
                theirs = calc_launch_digest(
                    SevMode.SEV_SNP, count, CPU_SIGS.get(cpu, 0), str(image), kernel, initrd, line, feature, vmm_type=vmm
                ).hex()
                compared += 1
                digests.add(digest)
                if digest != theirs:
                    differ += 1
                    print(f"DISAGREE {vmm.name}, {name}, {boot}, {count} vcpus, {cpu}, {feature:#x}: {digest} {theirs}")
    print(f"sev-snp-measure: {compared - differ} of {compared} launch digests agree, {len(digests)} different ones")
    return 0 if not differ and compared >= 500 and len(digests) >= 300 else 1


if __name__ == "__main__":
    sys.exit(main())
