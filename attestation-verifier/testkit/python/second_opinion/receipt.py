"""The receipt: claims, deterministic CBOR and COSE_Sign1 (formats.md section 4)."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from . import Malformed, cbor
from .digests import sha256

PROFILE = "urn:uuid:1b847d3a-7d20-4241-828d-5fc032fd52d8"
ISS, IAT, CTI, NONCE, PROFILE_LABEL = 1, 6, 7, 10, 265
MODEL, CONFIG, SEQUENCE, KEYSET = -65539, -65600, -65545, -65601
GUARANTEES, CATALOG = -65602, -65603
REQUEST, RESPONSE, INPUTS, OUTPUTS = -65604, -65605, -65606, -65607
STATUS, PAYMENT = -65608, -65609
COMMITMENTS = {"request": REQUEST, "response": RESPONSE, "inputs": INPUTS, "outputs": OUTPUTS}
NAMES = ("logged", "proven", "quoted", "recomputed", "signed")

_ALWAYS = {ISS, IAT, CTI, PROFILE_LABEL, SEQUENCE, KEYSET, GUARANTEES, CATALOG, REQUEST, RESPONSE, STATUS}
_SOMETIMES = {NONCE, MODEL, CONFIG, INPUTS, OUTPUTS, PAYMENT}


def close(names) -> list[str]:
    """The set closed under implication, sorted bytewise."""
    names = set(names)
    if names & {"logged", "quoted"}:
        names.add("signed")
    return sorted(names)


def kid(public_key: bytes) -> bytes:
    return sha256(public_key)[:8]


def protected_header(key_id: bytes) -> bytes:
    return cbor.dumps({1: -19, 4: key_id})


def to_be_signed(protected: bytes, payload: bytes) -> bytes:
    return cbor.dumps(["Signature1", protected, b"", payload])


def assemble(protected: bytes, payload: bytes, signature: bytes, unprotected: bytes = b"\xa0") -> bytes:
    return b"\xd2\x84" + cbor.dumps(protected) + unprotected + cbor.dumps(payload) + cbor.dumps(signature)


def sign_payload(key: Ed25519PrivateKey, payload: bytes) -> bytes:
    """Signs bytes that the caller vouches for: mutants sign what no honest enclave would write."""
    protected = protected_header(kid(key.public_key().public_bytes_raw()))
    return assemble(protected, payload, key.sign(to_be_signed(protected, payload)))


def sign(key: Ed25519PrivateKey, claims: dict) -> bytes:
    return sign_payload(key, cbor.dumps(claims))


def _bytes(claims, label, sizes):
    value = claims[label]
    if not isinstance(value, bytes) or len(value) not in sizes:
        raise Malformed(f"receipt: claim {label}")


def _number(claims, label, limit=1 << 64):
    value = claims[label]
    if not isinstance(value, int) or not 0 <= value < limit:
        raise Malformed(f"receipt: claim {label}")


def check_claims(claims: dict) -> None:
    labels = set(claims)
    if not _ALWAYS <= labels <= _ALWAYS | _SOMETIMES:
        raise Malformed(f"receipt: labels {sorted(labels ^ _ALWAYS)}")
    if not isinstance(claims[ISS], str) or len(claims[ISS].encode()) > 256 or claims[PROFILE_LABEL] != PROFILE:
        raise Malformed("receipt: iss or profile")
    _number(claims, IAT)
    _number(claims, SEQUENCE)
    _number(claims, STATUS, 1000)
    _bytes(claims, CTI, {16})
    if NONCE in claims:
        _bytes(claims, NONCE, range(8, 65))
    for label in (MODEL, CONFIG, KEYSET, REQUEST, RESPONSE, INPUTS, OUTPUTS):
        if label in claims:
            _bytes(claims, label, {32})
    names = claims[GUARANTEES]
    if not isinstance(names, list) or not names or names != close(names) or not set(names) <= set(NAMES):
        raise Malformed("receipt: guarantees")
    catalog = claims[CATALOG]
    if not isinstance(catalog, list) or len(catalog) != 2 or not isinstance(catalog[0], int) or catalog[0] < 0:
        raise Malformed("receipt: catalog")
    _bytes(catalog, 1, {32})
    answered = claims[STATUS] == 0
    if ((MODEL in claims) != (CONFIG in claims)) or (answered and not {MODEL, INPUTS, OUTPUTS} <= labels):
        raise Malformed("receipt: an answer lacks a claim")
    if not answered and {INPUTS, OUTPUTS} & labels:
        raise Malformed("receipt: a refusal with tensors")


def parse(cose: bytes) -> tuple[dict, bytes, bytes, bytes]:
    """Returns claims, protected header, payload and signature."""
    if len(cose) > 4096:
        raise Malformed("receipt: longer than 4 KiB")
    value = cbor.loads(cose)
    if not isinstance(value, cbor.Tag) or value.number != 18 or not isinstance(value.value, list):
        raise Malformed("receipt: not COSE_Sign1")
    if len(value.value) != 4:
        raise Malformed("receipt: not four elements")
    protected, unprotected, payload, signature = value.value
    if unprotected != {} or not isinstance(protected, bytes) or not isinstance(payload, bytes):
        raise Malformed("receipt: headers or payload")
    if not isinstance(signature, bytes) or len(signature) != 64:
        raise Malformed("receipt: signature length")
    header = cbor.loads(protected)
    if not isinstance(header, dict) or set(header) != {1, 4} or header[1] != -19:
        raise Malformed("receipt: protected header")
    if not isinstance(header[4], bytes) or len(header[4]) != 8:
        raise Malformed("receipt: kid")
    claims = cbor.loads(payload)
    if not isinstance(claims, dict):
        raise Malformed("receipt: payload is not a map")
    check_claims(claims)
    return claims, protected, payload, signature


def verifies(cose: bytes, public_key: bytes) -> bool:
    _, protected, payload, signature = parse(cose)
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, to_be_signed(protected, payload))
    except InvalidSignature:
        return False
    return True
