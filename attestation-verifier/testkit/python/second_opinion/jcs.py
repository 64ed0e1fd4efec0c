"""JSON Canonicalization Scheme (RFC 8785) over strings, integers, arrays, objects and null."""

import json

from . import Malformed

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 16

_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def _string(text: str) -> str:
    out = []
    for character in text:
        if character in _SHORT:
            out.append(_SHORT[character])
        elif character < " ":
            out.append(f"\\u{ord(character):04x}")
        else:
            out.append(character)
    return '"' + "".join(out) + '"'


def _encode(value, depth: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > MAX_INTEGER:
            raise Malformed("JSON: integer out of range")
        return str(value)
    if depth >= MAX_DEPTH:
        raise Malformed("JSON: too deep")
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_encode(item, depth + 1) for item in value) + "]"
    if isinstance(value, dict):
        # RFC 8785 section 3.2.3: members are sorted by their UTF-16 code units.
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(_string(n) + ":" + _encode(value[n], depth + 1) for n in names) + "}"
    raise Malformed(f"JSON: {type(value).__name__} is not part of the format")


def dumps(value) -> bytes:
    """The canonical bytes of `value`."""
    try:
        return _encode(value, 0).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Malformed("JSON: lone surrogate") from error


def _no_duplicates(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed("JSON: duplicate member")
    return members


def _refuse(text):
    raise Malformed(f"JSON: {text} is not an integer")


def _bounded_depth(text: str) -> None:
    depth, in_string, escaped = 0, False, False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Malformed("JSON: too deep")
        elif character in "]}":
            depth -= 1


def loads(data: bytes):
    """Parses canonical bytes and refuses all others."""
    try:
        text = data.decode("utf-8")
        _bounded_depth(text)
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_float=_refuse, parse_constant=_refuse)
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(f"JSON: {error}") from error
    if dumps(value) != data:
        raise Malformed("JSON: not canonical")
    return value


def to_file(value) -> bytes:
    return dumps(value) + b"\n"


def from_file(data: bytes):
    if not data.endswith(b"\n"):
        raise Malformed("file: no newline at the end")
    return loads(data[:-1])
