"""Binary HTTP (RFC 9292): requests and answers of known length, as one string of bytes."""

from . import Malformed

REQUEST, ANSWER = 0, 1


def number(value: int) -> bytes:
    """A number of variable length (RFC 9000 section 16), in its shortest form."""
    for code, size in enumerate((1, 2, 4, 8)):
        if value < 1 << (8 * size - 2):
            return (value | code << (8 * size - 2)).to_bytes(size, "big")
    raise Malformed("binary HTTP: a number of more than 62 bits")


def counted(part: bytes) -> bytes:
    return number(len(part)) + part


class Reader:
    def __init__(self, data: bytes):
        self.rest = data

    def take(self, size: int) -> bytes:
        if size > len(self.rest):
            raise Malformed("binary HTTP: cut off")
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def number(self) -> int:
        first = self.take(1)
        size = 1 << (first[0] >> 6)
        whole = first + self.take(size - 1)
        return int.from_bytes(whole, "big") & (1 << (8 * size - 2)) - 1

    def counted(self) -> bytes:
        return self.take(self.number())

    def section(self) -> bytes:
        """One that may be left off where nothing comes after it (section 3.8)."""
        return self.counted() if self.rest else b""

    def end(self) -> None:
        if self.section():
            raise Malformed("binary HTTP: trailers")
        if self.rest.strip(b"\0"):
            raise Malformed("binary HTTP: padding that is not zero")


def _fields(section: bytes) -> list[tuple[str, str]]:
    reader, found = Reader(section), []
    while reader.rest:
        name, value = reader.counted().decode("ascii"), reader.counted().decode("latin-1")
        if not name or name != name.lower():
            raise Malformed("binary HTTP: the name of a field")
        found.append((name, value))
    return found


def request(method: str, authority: str, target: str, fields: list[tuple[str, str]], content: bytes) -> bytes:
    control = b"".join(counted(part.encode()) for part in (method, "https", authority, target))
    section = b"".join(counted(name.encode()) + counted(value.encode()) for name, value in fields)
    return number(REQUEST) + control + counted(section) + counted(content) + counted(b"")


def read_request(message: bytes) -> tuple[list[str], list[tuple[str, str]], bytes]:
    """Method, scheme, authority and path; fields; content."""
    reader = Reader(message)
    if reader.number() != REQUEST:
        raise Malformed("binary HTTP: no request of known length")
    control = [reader.counted().decode("ascii") for _ in range(4)]
    fields, content = _fields(reader.section()), reader.section()
    reader.end()
    return control, fields, content


def answer(status: int, fields: list[tuple[str, str]], content: bytes) -> bytes:
    section = b"".join(counted(name.encode()) + counted(value.encode()) for name, value in fields)
    return number(ANSWER) + number(status) + counted(section) + counted(content) + counted(b"")


def read_answer(message: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, fields, content. Informational answers before it are refused: there are none here (formats.md section 13)."""
    reader = Reader(message)
    if reader.number() != ANSWER:
        raise Malformed("binary HTTP: no answer of known length")
    status = reader.number()
    if not 200 <= status <= 599:
        raise Malformed(f"binary HTTP: status {status}")
    fields, content = _fields(reader.section()), reader.section()
    reader.end()
    return status, fields, content
