"""Deterministic CBOR (RFC 8949 section 4.2.1): unsigned, negative, bytes, text, array, map, tag."""

from dataclasses import dataclass

from . import Malformed


@dataclass(frozen=True)
class Tag:
    number: int
    value: object


def head(major: int, argument: int) -> bytes:
    """One initial byte and its argument in the shortest form."""
    if argument < 24:
        return bytes([major << 5 | argument])
    for information, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * size):
            return bytes([major << 5 | information]) + argument.to_bytes(size, "big")
    raise Malformed("CBOR: integer too large")


def dumps(value) -> bytes:
    if isinstance(value, bool) or value is None:
        raise Malformed("CBOR: simple values are not part of the format")
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        data = value.encode("utf-8")
        return head(3, len(data)) + data
    if isinstance(value, (list, tuple)):
        return head(4, len(value)) + b"".join(dumps(item) for item in value)
    if isinstance(value, dict):
        members = sorted((dumps(key), dumps(item)) for key, item in value.items())
        return head(5, len(members)) + b"".join(key + item for key, item in members)
    if isinstance(value, Tag):
        return head(6, value.number) + dumps(value.value)
    raise Malformed(f"CBOR: cannot write {type(value).__name__}")


class _Reader:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        piece = self.data[self.at : self.at + size]
        if len(piece) != size:
            raise Malformed("CBOR: cut short")
        self.at += size
        return piece

    def value(self, depth: int = 0):
        if depth > 16:
            raise Malformed("CBOR: too deep")
        initial = self.take(1)[0]
        major, information = initial >> 5, initial & 31
        if information < 24:
            argument = information
        elif information < 28:
            argument = int.from_bytes(self.take(1 << (information - 24)), "big")
        else:
            raise Malformed("CBOR: reserved or indefinite length")
        if major == 0:
            return argument
        if major == 1:
            return -1 - argument
        if major == 2:
            return self.take(argument)
        if major == 3:
            try:
                return self.take(argument).decode("utf-8")
            except UnicodeDecodeError as error:
                raise Malformed("CBOR: text is not UTF-8") from error
        if major == 4:
            if argument > len(self.data):
                raise Malformed("CBOR: cut short")
            return [self.value(depth + 1) for _ in range(argument)]
        if major == 5:
            if argument > len(self.data):
                raise Malformed("CBOR: cut short")
            members = {}
            for _ in range(argument):
                key = self.value(depth + 1)
                if not isinstance(key, (int, str)) or key in members:
                    raise Malformed("CBOR: bad or duplicate key")
                members[key] = self.value(depth + 1)
            return members
        if major == 6:
            return Tag(argument, self.value(depth + 1))
        raise Malformed("CBOR: simple values are not part of the format")


def loads(data: bytes):
    """Parses deterministic bytes and refuses all others."""
    reader = _Reader(data)
    value = reader.value()
    if reader.at != len(data):
        raise Malformed("CBOR: trailing bytes")
    if dumps(value) != data:
        raise Malformed("CBOR: not deterministic")
    return value
