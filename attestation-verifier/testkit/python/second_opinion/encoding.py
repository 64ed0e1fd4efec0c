"""Strict text encodings: base64 with padding and zero pad bits, lower-case hex."""

import base64
import binascii
import re

from . import Malformed


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def unb64(text: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise Malformed(f"base64: {error}") from error
    if b64(data) != text:  # refuses pad bits that are not zero
        raise Malformed("base64: not canonical")
    return data


def unhex(text: str, size: int | None = None) -> bytes:
    if not isinstance(text, str) or not re.fullmatch(r"(?:[0-9a-f]{2})*", text):
        raise Malformed("hex: not lower case")
    data = bytes.fromhex(text)
    if size is not None and len(data) != size:
        raise Malformed(f"hex: {len(data)} bytes, expected {size}")
    return data
