"""A guest under QEMU on an emulated CPU, with what belongs to it: the vsock device, a network card, disks. All of it ends with it.

Standard library alone. Everything works inside one folder: sockets have short names there, and the console's text stays.
"""
from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from stack import ROOT, Ends, Failed, Process  # noqa: E402

QEMU = "qemu-system-x86_64"
# The guest's context id; the host is always 2.
CID = 3
# The enclave's listeners, the same over vsock and TCP.
PORTS = {"public": 8000, "control": 8001, "tls": 8002}
# Where the guest's kernel asks for quotes in a test image.
QUOTES = 9000
VSOCK_SOCKET = "vm.sock"
VSOCK_DEVICE = ("vhost-device-vsock", "0.3.0")


def qemu_version() -> str | None:
    """What QEMU there is, or None."""
    if shutil.which(QEMU) is None:
        return None
    said = subprocess.run([QEMU, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    found = re.search(r"version ([0-9.]+)", said)
    return found[1] if found else "unknown"


def vsock_device() -> Path:
    """The program that gives QEMU a vsock without the kernel's help, from crates.io at a pinned version; built once."""
    name, version = VSOCK_DEVICE
    root = ROOT / "target" / "tools"
    program, stamp = root / "bin" / name, root / f"{name}.version"
    if program.exists() and stamp.exists() and stamp.read_text() == version:
        return program
    cargo = shutil.which("cargo") or Path.home() / ".cargo" / "bin" / "cargo"
    done = subprocess.run([cargo, "install", "--locked", "--quiet", "--version", f"={version}", "--root", root, name],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise Failed(f"cargo install {name} {version} ended with {done.returncode}:\n{done.stderr.strip()[-2000:]}")
    stamp.write_text(version)
    return program


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Guest(Ends):
    """A running guest. A context manager; `console()` is what it has said."""

    def __init__(self, folder: Path, *, kernel: Path | None = None, initrd: Path | None = None, cmdline: str = "", firmware: tuple[Path, Path] | None = None,
                 disks: tuple[Path, ...] = (), vsock: bool = False, net: bool = False, alone: bool = False, cpu: str = "max", cpus: int = 2,
                 memory: int = 1024):  # fmt: skip
        self.folder, self.vsock, self.net, self.alone, self.cpu = folder, vsock, net, alone, cpu
        self.kernel, self.initrd, self.cmdline, self.firmware, self.disks = kernel, initrd, cmdline, firmware, disks
        self.cpus, self.memory = cpus, memory
        self.ports: dict[str, int] = {}
        self.processes: list[Process] = []
        self.started = 0.0

    def command(self) -> list:
        """QEMU's command line. No KVM: every machine can run it, and on every machine it is the same CPU. One thread for all CPUs: when Linux
        patches its code while another emulated CPU runs it, QEMU with several may run half of the patch."""
        machine = "q35" + (",memory-backend=ram" if self.vsock else "")
        words = [QEMU, "-accel", "tcg,thread=single", "-machine", machine, "-cpu", self.cpu, "-smp", self.cpus, "-m", self.memory, "-nodefaults", "-no-user-config",
                 "-display", "none", "-serial", "file:console.log", "-no-reboot"]  # fmt: skip
        if self.firmware:
            code, variables = self.firmware
            words += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}", "-drive", f"if=pflash,unit=1,format=raw,file={variables}"]
        if self.kernel:
            words += ["-kernel", self.kernel, "-initrd", self.initrd, "-append", self.cmdline]
        for number, disk in enumerate(self.disks):
            words += ["-drive", f"if=none,id=disk{number},format=raw,readonly=on,file={disk}", "-device", f"virtio-blk-pci,drive=disk{number}"]
        if self.vsock:
            # What the device's process is to read and write has to be shared with it.
            words += ["-object", f"memory-backend-memfd,id=ram,size={self.memory}M,share=on", "-chardev", "socket,id=vsock,path=vhost.sock",
                      "-device", "vhost-user-vsock-pci,chardev=vsock"]  # fmt: skip
        if self.net:
            # What comes in are connections to the three ports. `alone`: nothing goes out, and QEMU's DHCP server names no gateway.
            forwards = "".join(f",hostfwd=tcp:127.0.0.1:{port}-:{PORTS[name]}" for name, port in self.ports.items())
            words += ["-netdev", f"user,id=net{',restrict=on' if self.alone else ''}{forwards}", "-device", "virtio-net-pci,netdev=net,romfile="]
        return words

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "console.log").write_bytes(b"")
        if self.net:
            self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        if self.vsock:
            self._run("vsock", [vsock_device(), "--vm", f"guest-cid={CID},socket=vhost.sock,uds-path={VSOCK_SOCKET}"])
            deadline = time.monotonic() + 20
            while not (self.folder / "vhost.sock").exists():
                if self.processes[-1].child.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"{VSOCK_DEVICE[0]} does not start:\n{self.processes[-1].text()[-2000:]}")
                time.sleep(0.02)
        command = self.command()
        (self.folder / "qemu.command").write_text(" ".join(map(str, command)) + "\n")
        self.started = time.monotonic()
        self.qemu = self._run("qemu", command)

    def _run(self, name: str, command: list) -> Process:
        process = Process(name, command, self.folder / f"{name}.log", folder=self.folder)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()
        self.processes.clear()

    def addresses(self) -> dict[str, str]:
        """The enclave's listeners as the host's settings name them, for a host that is started in the guest's folder."""
        if self.net:
            return {name: f"tcp://127.0.0.1:{port}" for name, port in self.ports.items()}
        return {name: f"vsock+unix://{VSOCK_SOCKET}:{port}" for name, port in PORTS.items()}

    def console(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace").replace("\r", "")

    def ended(self) -> bool:
        return self.qemu.child.poll() is not None

    def wait_for(self, pattern: str, seconds: float) -> re.Match:
        """Waits until the console matches; says what was there if the guest ends or stays silent."""
        deadline = time.monotonic() + seconds
        while True:
            over = self.ended()
            if found := re.search(pattern, self.console(), re.M):
                return found
            if over:
                raise Failed(f"the guest ended and did not say {pattern!r}; QEMU: {self.qemu.text()[-500:]}\n{self.console()[-2000:]}")
            if time.monotonic() > deadline:
                raise Failed(f"the guest did not say {pattern!r} within {seconds:.0f} s:\n{self.console()[-2000:]}")
            time.sleep(0.05)

    def wait_for_end(self, seconds: float) -> str:
        """Waits until the guest has powered itself off; gives the console's text."""
        deadline = time.monotonic() + seconds
        while not self.ended():
            if time.monotonic() > deadline:
                raise Failed(f"the guest did not end within {seconds:.0f} s:\n{self.console()[-2000:]}")
            time.sleep(0.05)
        return self.console()
