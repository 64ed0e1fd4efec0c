"""NumPy's .npy files (format version 1.0), little-endian, C order. Standard library alone."""

import ast
import struct
from pathlib import Path


def write(path: Path, descr: str, shape: list[int], data: bytes) -> None:
    """`descr` is NumPy's type string, such as `<f4`; `data` the raw elements."""
    header = repr({"descr": descr, "fortran_order": False, "shape": tuple(shape)})
    # Magic, version, length and header together are a multiple of 64 bytes, newline included.
    header = header.ljust((len(header) + 74) // 64 * 64 - 11) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)


def write_f32(path: Path, shape: list[int], values: list[float]) -> None:
    write(path, "<f4", shape, struct.pack(f"<{len(values)}f", *values))


def read(path: Path) -> tuple[str, list[int], bytes]:
    """Returns the type string (such as `<f4`), the shape and the raw data."""
    raw = path.read_bytes()
    if raw[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError(f"{path}: not a version 1.0 .npy file")
    (length,) = struct.unpack_from("<H", raw, 8)
    header = ast.literal_eval(raw[10 : 10 + length].decode("latin-1"))
    if header["fortran_order"]:
        raise ValueError(f"{path}: column-major data")
    return header["descr"], list(header["shape"]), raw[10 + length :]
