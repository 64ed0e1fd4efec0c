"""The volume of models: an erofs file system with its dm-verity hash tree directly behind it, and no superblock."""
from __future__ import annotations

import hashlib
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from errors import refused
from ingredients import sha256
from toolroot import Toolroot

BLOCK = 4096
DIGESTS = BLOCK // 32
# Any that is always the same: the volume is told from another by its root hash.
UUID = "746f7563-6873-746f-6e65-6d6f64656c73"


@dataclass(frozen=True)
class Volume:
    """What dm-verity is told, by the measured command line."""

    root: str
    salt: str
    data_blocks: int

    @property
    def word(self) -> str:
        return f"touchstone.models={self.root},{self.salt},{self.data_blocks}"


def hash_tree(path: Path, salt: bytes) -> tuple[bytes, bytes, int]:
    """The tree and root hash of a file of whole blocks as dm-verity (version 1, SHA-256) has them, and the number of blocks: each level
    hashes the blocks of the one below, the level next to the root comes first, the last block of a level is filled with zeros."""
    seeded = hashlib.sha256(salt)

    def hashed(block: bytes) -> bytes:
        digest = seeded.copy()
        digest.update(block)
        return digest.digest()

    below = bytearray()
    with path.open("rb") as data:
        while block := data.read(BLOCK):
            if len(block) != BLOCK:
                raise refused(f"{path} is not made of blocks of {BLOCK} bytes")
            below += hashed(block)
    blocks = len(below) // 32
    levels = []
    while len(below) > 32:
        below += b"\0" * (-len(below) % BLOCK)
        levels.append(bytes(below))
        below = bytearray(b"".join(hashed(levels[-1][at:at + BLOCK]) for at in range(0, len(levels[-1]), BLOCK)))
    return b"".join(reversed(levels)), bytes(below), blocks


def content_digest(models: Path) -> bytes:
    """SHA-256 over names and contents, in the order of names."""
    digest = hashlib.sha256()
    for path in sorted(models.rglob("*")):
        name = path.relative_to(models).as_posix().encode()
        if path.is_file():
            digest.update(b"%d %s %s" % (len(name), name, bytes.fromhex(sha256(path))))
    return digest.digest()


def copy_models(models: Path, target: Path) -> None:
    """Files and folders in the order of names, so that nothing of the source's file system shows; links and devices are refused."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    target.chmod(0o755)
    for path in sorted(models.rglob("*")):
        mode, copy = path.lstat().st_mode, target / path.relative_to(models)
        if stat.S_ISDIR(mode):
            copy.mkdir()
            copy.chmod(0o755)
        elif stat.S_ISREG(mode):
            shutil.copyfile(path, copy)
            copy.chmod(0o644)
        else:
            raise refused(f"{path} is neither file nor folder: the image takes no links and no devices")


def build(models: Path, image: Path, work: Path, tools: Toolroot) -> Volume:
    """Writes the volume to `image`. Salt: the first 32 bytes of the digest of what is in it, so that the same models give the same volume."""
    staging = work / "models"
    copy_models(models, staging)
    tools.run("mkfs.erofs", "-T", "0", "-U", UUID, "--all-root", "-x", "-1", "-d0", image, staging)
    size = image.stat().st_size
    with image.open("r+b") as volume:
        volume.truncate(size + -size % BLOCK)
    salt = content_digest(staging)
    tree, root, blocks = hash_tree(image, salt)
    with image.open("ab") as volume:
        volume.write(tree)
    image.chmod(0o644)
    shutil.rmtree(staging)
    return Volume(root.hex(), salt.hex(), blocks)
