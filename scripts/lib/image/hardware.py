"""The command lines for hosts with the hardware. Nobody of this project has run them on any: whoever does is the first."""
from __future__ import annotations

import shlex
from pathlib import Path

UNTRIED = "untried on hardware"


def _lines(words: list[str]) -> str:
    """A shell command, an option and its values a line."""
    rows: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not rows:
            rows.append([])
        rows[-1].append(word if word.startswith('"$(') else shlex.quote(word))
    return " \\\n    ".join(" ".join(row) for row in rows)


def _rest(image: Path, cpus: int, memory: int, net: bool) -> list[str]:
    # Devices of a confidential guest reach its memory only through pages that it shares: iommu_platform says so.
    # To this machine alone, where the host program is: the control listener believes whoever reaches it.
    device = (["-netdev", "user,id=net" + "".join(f",hostfwd=tcp:127.0.0.1:{port}-:{port}" for port in (8000, 8001, 8002)),
               "-device", "virtio-net-pci,netdev=net,disable-legacy=on,iommu_platform=on,romfile="]
              if net else ["-device", "vhost-vsock-pci,guest-cid=3,disable-legacy=on,iommu_platform=on"])  # fmt: skip
    disk = []
    if (image / "models.img").exists():
        disk = ["-drive", f"if=none,id=models,format=raw,readonly=on,file={image / 'models.img'}",
                "-device", "virtio-blk-pci,drive=models,disable-legacy=on,iommu_platform=on"]  # fmt: skip
    return ["-smp", str(cpus), "-m", f"{memory}M", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd.img"), "-append", f'"$(cat {shlex.quote(str(image / "cmdline"))})"',
            *disk, *device]  # fmt: skip


def snp(image: Path, cpus: int = 4, memory: int = 4096, net: bool = False) -> str:
    """SEV-SNP: Linux 6.11 and QEMU 9.1 or later. The CPU model goes into the measurement, and so does the number of CPUs."""
    return _lines(["qemu-system-x86_64", "-accel", "kvm", "-machine", "q35,confidential-guest-support=sev,memory-backend=ram",
                   "-cpu", "EPYC-Genoa", "-object", f"memory-backend-memfd,id=ram,size={memory}M,share=on,reserve=off",
                   "-object", "sev-snp-guest,id=sev,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on",
                   "-bios", str(image / "OVMF.amdsev.fd"), *_rest(image, cpus, memory, net)])  # fmt: skip


def tdx(image: Path, cpus: int = 4, memory: int = 4096, net: bool = False) -> str:
    """TDX: Linux 6.16 and QEMU 10.1 or later, and Intel's quote generation service on vsock port 4050."""
    guest = '{"qom-type":"tdx-guest","id":"tdx","quote-generation-socket":{"type":"vsock","cid":"2","port":"4050"}}'
    return _lines(["qemu-system-x86_64", "-accel", "kvm", "-machine", "q35,kernel-irqchip=split,confidential-guest-support=tdx,memory-backend=ram",
                   "-cpu", "host", "-object", f"memory-backend-memfd,id=ram,size={memory}M,share=on,reserve=off", "-object", guest,
                   "-bios", str(image / "OVMF.inteltdx.fd"), *_rest(image, cpus, memory, net)])  # fmt: skip


def both(image: Path, net: bool = False) -> str:
    return (f"On a host with SEV-SNP ({UNTRIED}; Linux 6.11, QEMU 9.1 or later):\n  {snp(image, net=net)}\n\n"
            f"On a host with TDX ({UNTRIED}; Linux 6.16, QEMU 10.1 or later, Intel's quote generation service):\n  {tdx(image, net=net)}")  # fmt: skip
