"""What of an ELF file the image's rules need: which libraries it names, and what a kernel module says of itself."""
from __future__ import annotations

import struct

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 0, 1, 5, 15, 29


class NotElf(Exception):
    """The bytes are not an ELF file for x86-64."""


def _header(data: bytes) -> tuple:
    if len(data) < 64 or data[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", data, 18)[0] != 62:
        raise NotElf("not a little-endian ELF file for x86-64")
    return struct.unpack_from("<16sHHIQQQIHHHHHH", data)


def _text(data: bytes, at: int) -> str:
    return data[at:data.index(b"\0", at)].decode()


def is_elf(data: bytes) -> bool:
    return data[:4] == b"\x7fELF"


def needed(data: bytes) -> tuple[str | None, list[str]]:
    """The program interpreter (None for a library), and the libraries that the file names. A search path in the file
    is refused: in the image the loader's own folders are the only ones."""
    head = _header(data)
    offset, size, count = head[5], head[9], head[10]
    segments = [struct.unpack_from("<IIQQQQQQ", data, offset + i * size) for i in range(count)]
    interpreter = next((_text(data, s[2]) for s in segments if s[0] == PT_INTERP), None)
    dynamic = next((s for s in segments if s[0] == PT_DYNAMIC), None)
    if dynamic is None:
        return interpreter, []
    entries = []
    for at in range(dynamic[2], dynamic[2] + dynamic[5], 16):
        tag, value = struct.unpack_from("<qQ", data, at)
        if tag == DT_NULL:
            break
        entries.append((tag, value))
    strings = next(value for tag, value in entries if tag == DT_STRTAB)
    load = next(s for s in segments if s[0] == PT_LOAD and s[3] <= strings < s[3] + s[5])
    strings += load[2] - load[3]
    for tag, value in entries:
        path = _text(data, strings + value) if tag in (DT_RPATH, DT_RUNPATH) else ""
        # ONNX Runtime's library says `$ORIGIN`: its own folder, which holds nothing else.
        if path not in ("", "$ORIGIN"):
            raise NotElf(f"it names a search path of its own: {path}")
    return interpreter, [_text(data, strings + value) for tag, value in entries if tag == DT_NEEDED]


def module_info(data: bytes) -> dict[str, list[str]]:
    """The section .modinfo of a kernel module: `depends`, `softdep`, `license`, …, each with its values."""
    head = _header(data)
    offset, size, count, names = head[6], head[11], head[12], head[13]
    sections = [struct.unpack_from("<IIQQQQ", data, offset + i * size) for i in range(count)]
    table = sections[names][4]
    found: dict[str, list[str]] = {}
    for section in sections:
        if _text(data, table + section[0]) == ".modinfo":
            for word in data[section[4]:section[4] + section[5]].split(b"\0"):
                key, equals, value = word.decode("utf-8", "replace").partition("=")
                if equals:
                    found.setdefault(key, []).append(value)
    return found


def depends(data: bytes) -> list[str]:
    """Names of the modules that must be loaded before this one, `-` and `_` alike written `_`."""
    names = [n for value in module_info(data).get("depends", []) for n in value.split(",") if n]
    return [n.replace("-", "_") for n in names]
