"""Digests and commitments (formats.md sections 4 and 5)."""

import hashlib
import struct

from . import Malformed, jcs

ROLES = ("request", "response", "inputs", "outputs")
DATATYPES = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4,
    "INT64": 8, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8, "BYTES": None,
}  # fmt: skip


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def lp(data: bytes) -> bytes:
    return u64(len(data)) + data


def commit(role: str, salt: bytes, digest: bytes) -> bytes:
    if role not in ROLES or len(salt) != 16 or len(digest) != 32:
        raise Malformed("commitment: role, salt or digest")
    return sha256(b"touchstone/commit/v1\n" + role.encode() + b"\n" + salt + digest)


def _message(kind: str, lines: list[str], header_length: int | None, body: bytes) -> bytes:
    lines = [f"touchstone/{kind}/v1", *lines, "-" if header_length is None else str(header_length)]
    return sha256("".join(line + "\n" for line in lines).encode() + body)


def request_digest(method: str, target: str, header_length: int | None, body: bytes) -> bytes:
    return _message("request", [method, target], header_length, body)


def response_digest(status: int, header_length: int | None, body: bytes) -> bytes:
    return _message("response", [str(status)], header_length, body)


def tensors_digest(tensors: list[tuple[str, str, list[int], bytes]]) -> bytes:
    """`tensors`: (name, datatype, shape, data as in the binary extension)."""
    ordered = sorted(tensors, key=lambda tensor: tensor[0].encode())
    if len({tensor[0] for tensor in ordered}) != len(ordered):
        raise Malformed("tensors: duplicate name")
    out = b"touchstone/tensors/v1\n" + u64(len(ordered))
    for name, datatype, shape, data in ordered:
        if datatype not in DATATYPES:
            raise Malformed(f"tensors: datatype {datatype}")
        out += lp(name.encode()) + lp(datatype.encode()) + u64(len(shape))
        out += b"".join(u64(dimension) for dimension in shape) + lp(data)
    return sha256(out)


def model_digest(files: list[tuple[str, bytes, int]]) -> bytes:
    """`files`: (name, SHA-256, size) of every file that the runtime opens."""
    ordered = sorted(files, key=lambda file: file[0].encode())
    manifest = {
        "entry": "model.onnx",
        "files": [{"name": name, "sha256": digest.hex(), "size": size} for name, digest, size in ordered],
        "scheme": "sha256-manifest/1",
    }
    return sha256(jcs.dumps(manifest))


def object_digest(value) -> bytes:
    """SHA-256(JCS(value)): keysets, catalogs, config objects."""
    return sha256(jcs.dumps(value))
