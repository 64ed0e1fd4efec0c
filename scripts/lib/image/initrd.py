"""The initrd: which files, checked against what may be there, as a cpio archive that depends on nothing but them."""
from __future__ import annotations

import hashlib
import lzma
import posixpath
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import elf
from errors import refused
from toolroot import LIBRARIES, Toolroot

LOADER = "lib64/ld-linux-x86-64.so.2"
ONNXRUNTIME = "usr/lib/touchstone/libonnxruntime.so"
SETTINGS = ("init.toml", "enclave-vsock.toml", "enclave-tcp.toml")
EMPTY = ("dev", "models", "proc", "run", "sys")
# Groups of init.toml's [modules], each with those that are loaded before it, whatever the command line says.
GROUPS = {"always": (), "vsock": ("always",), "net": ("always",), "volume": ("always",), "platform": ("always",)}


@dataclass(frozen=True)
class Entry:
    """A file (with its bytes) or a folder (None) of the image."""

    body: bytes | None = None
    executable: bool = False


def cpio(entries: dict[str, Entry]) -> bytes:
    """A newc archive (cpio(5), what Linux unpacks): sorted by name, so that a folder comes before what is in it; inode numbers by
    order; everything of root's, of 1970, modes 0755 for folders and programs and 0644 for all else."""
    out = bytearray()

    def add(name: str, mode: int, inode: int, links: int, body: bytes) -> None:
        path = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, links, 0, len(body), 0, 0, 0, 0, len(path), 0)
        out.extend(b"070701" + b"".join(b"%08X" % f for f in fields) + path)
        out.extend(b"\0" * (-len(out) % 4) + body)
        out.extend(b"\0" * (-len(out) % 4))

    for inode, name in enumerate(sorted(entries), 1):
        entry = entries[name]
        if entry.body is None:
            add(name, stat.S_IFDIR | 0o755, inode, 2, b"")
        else:
            add(name, stat.S_IFREG | (0o755 if entry.executable else 0o644), inode, 1, entry.body)
    add("TRAILER!!!", 0, 0, 1, b"")
    # Padded as cpio does, so that another archive may be put behind.
    out.extend(b"\0" * (-len(out) % 512))
    return bytes(out)


def read(archive: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Name, mode and content of each entry of an archive as `cpio` writes it, in its order."""
    at = 0
    while True:
        fields = [int(archive[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        name = archive[at + 110:at + 109 + fields[11]].decode()
        body = at + 110 + fields[11]
        body += -body % 4
        if name == "TRAILER!!!":
            return
        yield name, fields[1], archive[body:body + fields[6]]
        at = body + fields[6]
        at += -at % 4


def listing(archive: bytes) -> dict[str, tuple[int, int]]:
    """Mode and size by name. A name that stands twice is refused: Linux would take the last."""
    found: dict[str, tuple[int, int]] = {}
    for name, mode, body in read(archive):
        if name in found:
            raise refused(f"the initrd holds {name} twice")
        found[name] = (mode, len(body))
    return found


def contents(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and SHA-256 by name."""
    return {name: (mode, hashlib.sha256(body).digest()) for name, mode, body in read(archive)}


def with_folders(entries: dict[str, Entry]) -> dict[str, Entry]:
    """The entries with every folder that they stand in."""
    whole = dict(entries)
    for name in entries:
        while name := posixpath.dirname(name):
            whole.setdefault(name, Entry())
    return whole


def module_names(init_toml: str) -> dict[str, list[str]]:
    """The lists of [modules] in init.toml. (Python before 3.11 reads no TOML; PID 1 reads the whole file strictly.)"""
    table = re.search(r"^\[modules\]\s*$(.*?)(?=^\[|\Z)", init_toml, re.M | re.S)
    if table is None:
        raise refused("init.toml has no [modules]")
    text = re.sub(r"#.*", "", table[1])
    lists = {key: re.findall(r'"([^"]*)"', values) for key, values in re.findall(r"^(\w+)\s*=\s*\[(.*?)\]", text, re.M | re.S)}
    unknown = set(lists) - set(GROUPS)
    if unknown or re.sub(r"^\w+\s*=\s*\[.*?\]", "", text, flags=re.M | re.S).strip():
        raise refused(f"init.toml: [modules] holds more than lists of {', '.join(GROUPS)}: {', '.join(sorted(unknown)) or 'something else'}")
    return lists


def modules(init_toml: str, kernel: dict[str, bytes]) -> dict[str, Entry]:
    """The kernel's modules that init.toml names, unpacked. Each must come behind all that it needs: `depends` of its own .modinfo."""
    by_name = {}
    for place, packed in kernel.items():
        name = posixpath.basename(place)
        if ".ko" in name:
            by_name[name.split(".ko")[0] + ".ko"] = (name, packed)
    lists, found = module_names(init_toml), {}
    for group, before in GROUPS.items():
        loaded = [n for g in before for n in lists.get(g, [])]
        for name in lists.get(group, []):
            if name not in by_name:
                raise refused(f"init.toml names {name}, which the pinned kernel does not have as a module")
            file, packed = by_name[name]
            body = lzma.decompress(packed) if file.endswith(".xz") else packed
            ready = {n[:-3].replace("-", "_") for n in loaded}
            missing = [n for n in elf.depends(body) if n not in ready]
            if missing:
                raise refused(f"init.toml: {name} in `{group}` needs {', '.join(missing)} before it; put {'it' if len(missing) == 1 else 'them'} there")
            loaded.append(name)
            found[f"usr/lib/modules/{name}"] = Entry(body)
    return found


def libraries(programs: dict[str, bytes], tools: Toolroot, allowed: set[str]) -> dict[str, Entry]:
    """The shared libraries that the programs need, and theirs, out of the packages that are pinned for the image."""
    found: dict[str, Entry] = {}
    waiting = sorted(programs.items())
    while waiting:
        place, body = waiting.pop(0)
        try:
            interpreter, names = elf.needed(body)
        except elf.NotElf as error:
            raise refused(f"{place}: {error}") from None
        if interpreter is not None and interpreter != f"/{LOADER}":
            raise refused(f"{place} wants the loader {interpreter}")
        for name in names:
            loader = name == posixpath.basename(LOADER)
            at = LOADER if loader else f"{LIBRARIES}/{name}"
            if at in found:
                continue
            try:
                owner, path, _ = tools.library(name)
            except KeyError:
                raise refused(f"{place} needs {name}, which is in none of the pinned packages") from None
            if owner not in allowed:
                raise refused(f"{place} needs {name} of the package {owner}, which is not pinned for the image (use `image` in pins.json)")
            found[at] = Entry(path.read_bytes(), executable=loader)
            waiting.append((at, found[at].body))
    if LOADER not in found:
        owner, path, _ = tools.library(posixpath.basename(LOADER))
        if owner not in allowed:
            raise refused(f"the loader is of the package {owner}, which is not pinned for the image")
        found[LOADER] = Entry(path.read_bytes(), executable=True)
    return found


def folder(root: Path, below: str) -> dict[str, Entry]:
    """A folder's files and folders; a link, a device or a name that is not UTF-8 is refused."""
    found: dict[str, Entry] = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        try:
            name = f"{below}/{path.relative_to(root).as_posix()}"
            name.encode()
        except UnicodeEncodeError:
            raise refused(f"a name in {root} is not UTF-8") from None
        if stat.S_ISDIR(mode):
            found[name] = Entry()
        elif stat.S_ISREG(mode):
            found[name] = Entry(path.read_bytes())
        else:
            raise refused(f"{path} is neither file nor folder: the image takes no links and no devices")
    return found


EXPECTED = re.compile("|".join([
    "init", "usr/bin/enclave", re.escape(ONNXRUNTIME), re.escape(LOADER),
    *(f"etc/touchstone/{re.escape(n)}" for n in SETTINGS),
    LIBRARIES + r"/(ld-linux-x86-64|libc|libm|libdl|libpthread|librt|libgcc_s|libstdc\+\+)\.so\.[0-9]+",
    r"usr/lib/modules/[a-z0-9_-]+\.ko", "models/.+",
]))
FOLDERS = {*EMPTY, "etc", "etc/touchstone", "lib64", "usr", "usr/bin", "usr/lib", LIBRARIES, "usr/lib/modules", "usr/lib/touchstone"}


def check(archive: bytes) -> None:
    """Reads the finished archive and refuses it if anything is in it that an image does not have: no shell, no package
    manager, no second program, nothing but files and folders."""
    found = listing(archive)
    unexpected = []
    for name, (mode, _) in found.items():
        good = (stat.S_ISDIR(mode) and (name in FOLDERS or name.startswith("models/")) or
                stat.S_ISREG(mode) and EXPECTED.fullmatch(name) is not None)
        allowed = 0o755 if stat.S_ISDIR(mode) or name in ("init", "usr/bin/enclave", LOADER) else 0o644
        if not good or stat.S_IMODE(mode) != allowed:
            unexpected.append(f"{name} (mode {mode:o})")
    missing = [n for n in ("init", "usr/bin/enclave", ONNXRUNTIME, LOADER, *(f"etc/touchstone/{s}" for s in SETTINGS)) if n not in found]
    if unexpected or missing:
        raise refused("the initrd is refused:" + "".join(f"\n  {n} does not belong there" for n in unexpected) +
                      "".join(f"\n  {n} is missing" for n in missing))
