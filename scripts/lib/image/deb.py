"""Reads Debian packages (deb(5): an ar archive with a compressed tar in it) with nothing but the standard library."""
from __future__ import annotations

import io
import os
import posixpath
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Iterator

# Debian's merged /usr: these names are links into /usr, whatever an older package calls its files.
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


class BadDeb(Exception):
    """The file is not a package that can be read here."""


def members(data: bytes) -> dict[str, bytes]:
    """The ar archive's members by name."""
    if not data.startswith(b"!<arch>\n"):
        raise BadDeb("not an ar archive")
    at, found = 8, {}
    while at < len(data):
        head = data[at:at + 60]
        if len(head) != 60 or head[58:] != b"`\n" or not head[48:58].strip().isdigit():
            raise BadDeb(f"no ar header at byte {at}")
        size = int(head[48:58])
        body = data[at + 60:at + 60 + size]
        if len(body) != size:
            raise BadDeb(f"ends inside a member: {len(body)} of {size} bytes")
        found[head[:16].decode("ascii", "replace").strip().rstrip("/")] = body
        at += 60 + size + size % 2
    return found


def _place(name: str) -> str:
    """A member's place below the root, with merged /usr. What would leave the root is refused."""
    path = posixpath.normpath(name)
    if path.startswith(("/", "..")):
        raise BadDeb(f"a member's path leaves the root: {name}")
    first = path.split("/", 1)[0]
    return f"usr/{path}" if first in MERGED else path


def entries(data: bytes) -> Iterator[tuple[tarfile.TarInfo, str, bytes | None]]:
    """Each member of the package's data: what it is, its place, and a regular file's bytes."""
    parts = members(data)
    name = next((n for n in parts if n.startswith("data.tar")), None)
    if name not in ("data.tar.xz", "data.tar.gz", "data.tar"):
        raise BadDeb(f"its data is {name or 'missing'}: only xz, gz and plain tar can be read here")
    with tarfile.open(fileobj=io.BytesIO(parts[name]), mode="r:*") as archive:
        for member in archive:
            body = archive.extractfile(member).read() if member.isreg() else None
            yield member, _place(member.name), body


def extract(data: bytes, root: Path) -> list[str]:
    """Writes files, folders and links below `root`; returns the places of files and links. Modes are 0755 and 0644,
    owners the caller. Absolute links become relative ones: inside `root` they mean `root`'s files, not this machine's."""
    written = []
    for member, place, body in entries(data):
        target = root / place
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink() or target.exists():
            target.unlink()
        if member.issym():
            goal = member.linkname
            if goal.startswith("/"):
                goal = _place(goal.lstrip("/"))
            else:
                goal = _place(posixpath.join(posixpath.dirname(place), goal))
            os.symlink(posixpath.relpath(goal, posixpath.dirname(place) or "."), target)
        elif member.islnk():
            shutil.copyfile(root / _place(member.linkname), target)
            target.chmod(stat.S_IMODE((root / _place(member.linkname)).stat().st_mode))
        elif body is not None:
            target.write_bytes(body)
            target.chmod(0o755 if member.mode & 0o100 else 0o644)
        else:
            raise BadDeb(f"{member.name} is neither file nor folder nor link")
        written.append(place)
    return written


def file(data: bytes, place: str) -> bytes:
    """One regular file of the package."""
    for member, found, body in entries(data):
        if found == place and body is not None:
            return body
    raise BadDeb(f"has no file {place}")
