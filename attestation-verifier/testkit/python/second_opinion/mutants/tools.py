"""Small steps from which lies are made. Each returns the hooks of a `Draft`."""

from .. import cbor
from ..encoding import b64, unb64


def bundle(change) -> dict:
    """Changes the bundle object in place before it is written canonically."""

    def edit(_, value):
        change(value)

    return {"bundle": edit}


def text(old: str, new: str) -> dict:
    """Replaces text in the file; what is replaced must be there once."""

    def change(_, data: bytes) -> bytes:
        if data.count(old.encode()) != 1:
            raise ValueError(f"{old!r} stands {data.count(old.encode())} times in the file")
        return data.replace(old.encode(), new.encode())

    return {"file": change}


def raw(change) -> dict:
    return {"file": lambda draft, data: change(data)}


def claim(label: int, value) -> dict:
    """Sets a claim before it is signed; a function gets the honest value."""

    def change(_, claims):
        claims[label] = value(claims.get(label)) if callable(value) else value

    return {"claims": change}


def no_claim(*labels: int) -> dict:
    def change(_, claims):
        for label in labels:
            del claims[label]

    return {"claims": change}


def payload(change) -> dict:
    """Changes the CBOR bytes of the payload before they are signed."""
    return {"payload": lambda draft, data: change(data)}


def cose(change) -> dict:
    """Changes the COSE bytes after they were signed."""
    return {"cose": lambda draft, data: change(data)}


def parts(change) -> dict:
    """Takes the COSE structure apart, changes it and writes it again."""

    def rewrite(draft, data):
        protected, unprotected, body, signature = cbor.loads(data).value
        return change(draft, protected, unprotected, body, signature)

    return {"cose": rewrite}


def head_at(data: bytes, head: bytes, longer: bytes) -> bytes:
    """Replaces the first occurrence of an encoded head by a longer encoding of the same value."""
    if head not in data:
        raise ValueError("no such head in the payload")
    return data.replace(head, longer, 1)


def reports(**changes) -> dict:
    """Every report of the bundle says something else, and is signed by the genuine key."""

    def change(draft, evidence):
        return [draft.evidence(item["purpose"], **changes) for item in evidence]

    return {"evidence": change}


def quotes(change) -> dict:
    """Changes the bytes of every report after they were signed."""

    def each(_, evidence):
        for item in evidence:
            item["quote"] = b64(change(bytearray(unb64(item["quote"]))))

    return {"evidence": each}


def collateral(change) -> dict:
    """Changes the collateral beside every report; `change(draft, collateral)` edits in place."""

    def each(draft, evidence):
        for item in evidence:
            change(draft, item["collateral"])

    return {"evidence": each}


def items(change) -> dict:
    """Changes the list of evidence objects."""
    return {"evidence": change}


def reopened(role: str, **values) -> dict:
    return bundle(lambda b: b["openings"][role].update(values))


def flip(data: bytes, index: int, mask: int = 1) -> bytes:
    changed = bytearray(data)
    changed[index] ^= mask
    return bytes(changed)
