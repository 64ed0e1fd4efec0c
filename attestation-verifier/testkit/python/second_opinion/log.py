"""RFC 6962 tree, C2SP signed notes, checkpoints and tlog-proofs (formats.md section 6)."""

import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from . import Malformed
from .digests import sha256
from .encoding import b64, unb64

KINDS = ("boot", "catalog", "receipt", "amend", "close")
NOTE_ED25519 = b"\x01"  # C2SP signed-note: algorithm byte of Ed25519


def entry(kind: str, object_digest: bytes) -> bytes:
    if kind not in KINDS:
        raise Malformed(f"log: entry kind {kind}")
    return b"touchstone/entry/v1\n" + kind.encode() + b"\n" + object_digest


def leaf(data: bytes) -> bytes:
    return sha256(b"\0" + data)


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right)


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def root(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return _node(root(leaves[:k]), root(leaves[k:]))


def inclusion(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1: PATH(m, D[n]), nearest sibling first."""
    if len(leaves) <= 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return inclusion(index, leaves[:k]) + [root(leaves[k:])]
    return inclusion(index - k, leaves[k:]) + [root(leaves[:k])]


def included(index: int, size: int, leaf_hash: bytes, proof: list[bytes], tree_root: bytes) -> bool:
    """RFC 9162 section 2.1.3.2."""
    if not 0 <= index < size:
        return False
    position, last, value = index, size - 1, leaf_hash
    for hash_ in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            value = _node(hash_, value)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            value = _node(value, hash_)
        position, last = position >> 1, last >> 1
    return last == 0 and value == tree_root


def origin(prefix: str, public_key: bytes) -> str:
    return f"{prefix}/{sha256(public_key).hex()[:16]}"


def key_id(name: str, public_key: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + NOTE_ED25519 + public_key)[:4]


def vkey(name: str, public_key: bytes) -> str:
    return f"{name}+{key_id(name, public_key).hex()}+{b64(NOTE_ED25519 + public_key)}"


def parse_vkey(text: str) -> tuple[str, bytes]:
    name, hash_, encoded = (text.split("+", 2) + ["", ""])[:3]
    raw = unb64(encoded)
    if raw[:1] != NOTE_ED25519 or len(raw) != 33 or vkey(name, raw[1:]) != text or not name:
        raise Malformed("verifier key")
    return name, raw[1:]


def checkpoint(log_origin: str, size: int, tree_root: bytes) -> str:
    return f"{log_origin}\n{size}\n{b64(tree_root)}\n"


def parse_checkpoint(text: str) -> tuple[str, int, bytes]:
    match = re.fullmatch(r"([^\n]+)\n(0|[1-9][0-9]*)\n([^\n]+)\n", text)
    if not match:
        raise Malformed("checkpoint: lines")
    tree_root = unb64(match[3])
    if len(tree_root) != 32 or int(match[2]) >= 1 << 63:
        raise Malformed("checkpoint: size or root")
    return match[1], int(match[2]), tree_root


def signature_line(key: Ed25519PrivateKey, name: str, text: str, id_: bytes | None = None) -> str:
    public = key.public_key().public_bytes_raw()
    id_ = key_id(name, public) if id_ is None else id_
    return f"\u2014 {name} {b64(id_ + key.sign(text.encode()))}\n"


def sign_note(key: Ed25519PrivateKey, name: str, text: str) -> str:
    return text + "\n" + signature_line(key, name, text)


def parse_note(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Returns the text and its signatures as (name, key id, signature bytes)."""
    text, separator, block = note.rpartition("\n\n")
    if not separator or not block.endswith("\n"):
        raise Malformed("note: no signature block")
    signatures = []
    for line in block[:-1].split("\n"):
        match = re.fullmatch("\u2014 ([^ +\n]+) ([^ \n]+)", line)
        if not match:
            raise Malformed("note: signature line")
        raw = unb64(match[2])
        if len(raw) < 5:
            raise Malformed("note: signature too short")
        signatures.append((match[1], raw[:4], raw[4:]))
    if not 1 <= len(signatures) <= 16:
        raise Malformed("note: number of signatures")
    return text + "\n", signatures


def note_verifies(note: str, name: str, public_key: bytes) -> bool:
    text, signatures = parse_note(note)
    mine = [s for n, i, s in signatures if n == name and i == key_id(name, public_key)]
    try:
        for signature in mine:
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature, text.encode())
    except InvalidSignature:
        return False
    return bool(mine)


def tlog_proof(index: int, hashes: list[bytes], note: str) -> str:
    lines = ["c2sp.org/tlog-proof@v1", f"index {index}", *(b64(hash_) for hash_ in hashes), ""]
    return "".join(line + "\n" for line in lines) + note


def parse_tlog_proof(proof: str) -> tuple[int, list[bytes], str]:
    header, separator, note = proof.partition("\n\n")
    lines = header.split("\n")
    match = re.fullmatch(r"index (0|[1-9][0-9]*)", lines[1] if len(lines) > 1 else "")
    if not separator or lines[0] != "c2sp.org/tlog-proof@v1" or not match:
        raise Malformed("tlog-proof: header")
    hashes = [unb64(line) for line in lines[2:]]
    if len(hashes) > 64 or any(len(hash_) != 32 for hash_ in hashes):
        raise Malformed("tlog-proof: hashes")
    return int(match[1]), hashes, note
