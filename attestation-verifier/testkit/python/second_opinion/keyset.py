"""The keyset, and the REPORT_DATA that binds it to a quote (formats.md sections 2 and 3)."""

import hashlib

from . import Malformed
from .digests import object_digest, sha256
from .encoding import b64, unb64, unhex
from .log import parse_vkey

MEMBERS = {"v", "name", "previous", "not_before", "not_after", "receipt_key", "log", "software", "config"}
OPTIONAL = {"tls_spki_sha256", "ohttp_keys"}
PURPOSES = ("boot", "session", "checkpoint", "receipt")


def keyset(name, receipt_key, log, not_before, not_after, software, config, previous=None) -> dict:
    return {
        "v": "touchstone/keyset/1",
        "name": name,
        "previous": previous.hex() if previous else None,
        "not_before": not_before,
        "not_after": not_after,
        "receipt_key": "ed25519:" + b64(receipt_key),
        "log": log,
        "software": software.hex(),
        "config": config.hex(),
    }


def receipt_key(keyset: dict) -> bytes:
    algorithm, _, key = keyset["receipt_key"].partition(":")
    raw = unb64(key)
    if algorithm != "ed25519" or len(raw) != 32:
        raise Malformed("keyset: receipt_key")
    return raw


def check(keyset: dict) -> bytes:
    """Refuses what is not a version 1 keyset; returns its digest."""
    members = set(keyset)
    if not MEMBERS <= members <= MEMBERS | OPTIONAL or keyset["v"] != "touchstone/keyset/1":
        raise Malformed("keyset: members")
    for field in ("software", "config"):
        unhex(keyset[field], 32)
    if keyset["previous"] is not None:
        unhex(keyset["previous"], 32)
    if "tls_spki_sha256" in keyset:
        unhex(keyset["tls_spki_sha256"], 32)
    if "ohttp_keys" in keyset and not unb64(keyset["ohttp_keys"]):
        raise Malformed("keyset: empty ohttp_keys")
    for field in ("not_before", "not_after"):
        if not isinstance(keyset[field], int) or keyset[field] < 0:
            raise Malformed(f"keyset: {field}")
    if not isinstance(keyset["name"], str) or not 0 < len(keyset["name"].encode()) <= 256:
        raise Malformed("keyset: name")
    receipt_key(keyset)
    parse_vkey(keyset["log"])
    return object_digest(keyset)


def report_data(purpose: str, keyset_digest: bytes, nonce: bytes | None, bind: bytes) -> bytes:
    """SHA-512 over five lines; `bind` is the digest of what this purpose binds."""
    if purpose not in PURPOSES:
        raise Malformed(f"report data: purpose {purpose}")
    text = (
        "touchstone/report-data/v1\n"
        f"purpose {purpose}\n"
        f"keyset sha256:{keyset_digest.hex()}\n"
        f"nonce {sha256(nonce).hex() if nonce is not None else '-'}\n"
        f"bind sha256:{bind.hex()}\n"
    )
    return hashlib.sha512(text.encode()).digest()


def bind_boot() -> bytes:
    return sha256(bytes(32))


def bind_session(spki_digest: bytes, exporter: bytes) -> bytes:
    return sha256(b"server\n" + spki_digest + exporter)


def bind_checkpoint(note_text: str) -> bytes:
    return sha256(note_text.encode())


def bind_receipt(cose: bytes) -> bytes:
    return sha256(cose)
