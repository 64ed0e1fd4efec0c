"""For platforms that boot disks: a unified kernel image, in an EFI system partition, on a disk with a GPT."""
from __future__ import annotations

import hashlib
import shutil
import struct
import uuid
import zlib
from pathlib import Path

from errors import refused
from ingredients import sha256
from toolroot import Toolroot

SECTOR = 512
MIB = 1 << 20
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
# "Linux filesystem data": PID 1 finds the volume by its partition's name.
DATA = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
MODELS = "touchstone-models"
OS_RELEASE = b"ID=touchstone\nNAME=Touchstone\nPRETTY_NAME=\"Touchstone guest image\"\n"


def _up(value: int, unit: int) -> int:
    return value + -value % unit


def unify(stub: bytes, sections: list[tuple[str, bytes]]) -> bytes:
    """Puts sections behind those of systemd's EFI stub, as a PE program: data, initialised, readable."""
    pe = struct.unpack_from("<I", stub, 0x3C)[0]
    machine, count, _, symbols, _, optional, _ = struct.unpack_from("<HHIIIHH", stub, pe + 4)
    magic = struct.unpack_from("<H", stub, pe + 24)[0]
    if stub[:2] != b"MZ" or stub[pe:pe + 4] != b"PE\0\0" or machine != 0x8664 or magic != 0x20B:
        raise refused("the stub is no PE32+ program for x86-64")
    section_align, file_align = struct.unpack_from("<II", stub, pe + 24 + 32)
    headers = struct.unpack_from("<I", stub, pe + 24 + 60)[0]
    table = pe + 24 + optional
    old = [struct.unpack_from("<8sIIII", stub, table + 40 * i) for i in range(count)]
    end = table + 40 * (count + len(sections))
    if end > headers or min(s[4] for s in old if s[3]) < end or symbols:
        raise refused("the stub has no room for more sections")
    out = bytearray(stub[:max(s[4] + s[3] for s in old)])
    address = max(s[2] + s[1] for s in old)
    for i, (name, body) in enumerate(sections):
        address = _up(address, section_align)
        out += b"\0" * (-len(out) % file_align)
        raw = _up(len(body), file_align)
        struct.pack_into("<8sIIIIIIHHI", out, table + 40 * (count + i), name.encode(), len(body), address, raw, len(out), 0, 0, 0, 0, 0x40000040)
        out += body + b"\0" * (raw - len(body))
        address += len(body)
    struct.pack_into("<H", out, pe + 6, count + len(sections))
    struct.pack_into("<I", out, pe + 24 + 56, _up(address, section_align))  # SizeOfImage
    struct.pack_into("<I", out, pe + 24 + 64, 0)  # CheckSum: firmware does not look at it
    return bytes(out)


def uki(stub: bytes, kernel: bytes, initrd: bytes, cmdline: str, release: str) -> bytes:
    """The unified kernel image: what is measured and started as one program."""
    return unify(stub, [(".osrel", OS_RELEASE), (".uname", release.encode()), (".cmdline", cmdline.encode()), (".initrd", initrd), (".linux", kernel)])


def system_partition(program: bytes, path: Path, tools: Toolroot, epoch: int) -> None:
    """A FAT32 file system with the program where firmware looks for it."""
    size = _up(len(program) + 8 * MIB, MIB)
    # FAT32 has at least 65,525 clusters; with clusters of one sector that is a little over 33 MB.
    size = max(size, 36 * MIB)
    staged = path.with_suffix(".program")
    staged.write_bytes(program)
    with path.open("wb") as image:
        image.truncate(size)
    env = {"SOURCE_DATE_EPOCH": str(epoch), "MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1"}
    tools.run("mformat", "-i", path, "-F", "-T", str(size // SECTOR), "-h", "255", "-s", "63", "-c", "1" if size < 256 * MIB else "8",
              "-N", "544f5543", "-v", "TOUCHSTONE", "::", env=env)
    tools.run("mmd", "-i", path, "::EFI", "::EFI/BOOT", env=env)
    tools.run("mcopy", "-i", path, staged, "::EFI/BOOT/BOOTX64.EFI", env=env)
    staged.unlink()


def disk(path: Path, parts: list[tuple[str, uuid.UUID, Path]]) -> None:
    """A raw disk of whole MiB with these partitions. Its identifiers are digests of what is in them: the same content, the same disk."""
    first, entries, placed, whole = MIB, bytearray(), [], hashlib.sha256()
    for name, kind, source in parts:
        size = source.stat().st_size
        digest = bytes.fromhex(sha256(source))
        whole.update(digest)
        last = first + _up(size, SECTOR) - SECTOR
        entries += struct.pack("<16s16sQQQ72s", kind.bytes_le, uuid.UUID(bytes=digest[:16], version=4).bytes_le, first // SECTOR, last // SECTOR, 0,
                               name.encode("utf-16-le"))
        placed.append((first, source))
        first = _up(last + SECTOR, MIB)
    total = first + MIB
    entries += b"\0" * (128 * 128 - len(entries))
    sectors, identifier = total // SECTOR, uuid.UUID(bytes=whole.digest()[:16], version=4)

    def header(here: int, there: int, table: int) -> bytes:
        fields = [b"EFI PART", 0x10000, 92, 0, 0, here, there, 34, sectors - 34, identifier.bytes_le, table, 128, 128, zlib.crc32(entries)]
        fields[3] = zlib.crc32(struct.pack("<8sIIIIQQQQ16sQIII", *fields))
        return struct.pack("<8sIIIIQQQQ16sQIII", *fields).ljust(SECTOR, b"\0")

    with path.open("wb") as out:
        out.truncate(total)
        protective = struct.pack("<B3sB3sII", 0, b"\0\x02\0", 0xEE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
        out.seek(446)
        out.write(protective)
        out.seek(510)
        out.write(b"\x55\xaa" + header(1, sectors - 1, 2) + entries)
        out.seek(total - SECTOR - len(entries))
        out.write(entries + header(sectors - 1, 1, sectors - 33))
        for at, source in placed:
            out.seek(at)
            with source.open("rb") as content:
                shutil.copyfileobj(content, out, MIB)
    path.chmod(0o644)
