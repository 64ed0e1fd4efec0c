"""Judges a bundle from the formats alone: what the receipt binds, what the log proves, who signed.

A second opinion on answers of the real enclave, not a policy engine: platform fields are not appraised.
"""

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from . import Malformed, Untrue, jcs, keyset, log, receipt
from .amd import SIGNED, SIZE, report_field
from .digests import ROLES, commit, object_digest, request_digest, response_digest, sha256
from .encoding import unb64, unhex

MEMBERS = {"v", "receipt", "keyset", "evidence"}
OPTIONAL = {"proof", "catalog", "openings", "attachments", "view"}


def need(condition, message: str) -> None:
    if not condition:
        raise Untrue(message)


@dataclass
class Caller:
    """What the caller knows beside the bundle; None is not compared."""

    request: tuple[str, str, int | None, bytes] | None = None  # method, target, header length, body
    response: tuple[int, int | None, bytes] | None = None  # status, header length, body
    nonce: bytes | None = None


@dataclass
class Opinion:
    claims: dict = field(default_factory=dict)
    achieved: set = field(default_factory=set)
    measurements: set = field(default_factory=set)


def parse(data: bytes) -> dict:
    if len(data) > 4 << 20:
        raise Malformed("bundle: longer than 4 MiB")
    bundle = jcs.from_file(data)
    if not isinstance(bundle, dict) or not MEMBERS <= set(bundle) <= MEMBERS | OPTIONAL:
        raise Malformed("bundle: members")
    if bundle["v"] != "touchstone/bundle/1":
        raise Malformed("bundle: version")
    return bundle


def judge(data: bytes, root: bytes, caller: Caller) -> Opinion:
    """Raises where anything is malformed or untrue. `root`: the ARK, DER."""
    bundle = parse(data)
    keys, cose = bundle["keyset"], unb64(bundle["receipt"])
    keyset_digest = keyset.check(keys)
    claims = receipt.parse(cose)[0]
    opinion = Opinion(claims)
    need(receipt.verifies(cose, keyset.receipt_key(keys)), "receipt: signature")
    need(claims[receipt.KEYSET] == keyset_digest, "receipt: another keyset")
    need(claims[receipt.ISS] == keys["name"], "receipt: another name")
    need(keys["not_before"] <= claims[receipt.IAT] <= keys["not_after"], "receipt: outside the keyset's life")
    need(caller.nonce is None or claims.get(receipt.NONCE) == caller.nonce, "receipt: another nonce")
    _catalog(bundle, claims)
    _openings(bundle, claims, caller)
    note_text = _proof(bundle, claims, keys, cose)
    for item in bundle["evidence"]:
        purpose = item["purpose"]
        opinion.measurements.add(_evidence(item, keyset_digest, note_text, cose, claims, root))
        opinion.achieved |= {"boot": {"signed"}, "checkpoint": {"logged"}, "receipt": {"quoted"}}[purpose]
    opinion.achieved = set(receipt.close(opinion.achieved))
    need(opinion.achieved >= set(claims[receipt.GUARANTEES]), "guarantees: less than the receipt states")
    return opinion


def _catalog(bundle: dict, claims: dict) -> None:
    catalog = bundle.get("catalog")
    if catalog is None:
        return
    need([catalog["epoch"], object_digest(catalog)] == claims[receipt.CATALOG], "catalog: another one")
    need(catalog["keyset_digest"] == claims[receipt.KEYSET].hex(), "catalog: another keyset")
    if claims[receipt.STATUS] == 0:
        pair = (claims[receipt.MODEL].hex(), claims[receipt.CONFIG].hex())
        rows = [(row["model_digest"], row["config_digest"]) for row in catalog["models"]]
        need(pair in rows, "catalog: the pair of digests is not in it")


def _openings(bundle: dict, claims: dict, caller: Caller) -> None:
    opened = {}
    for role, opening in bundle.get("openings", {}).items():
        if role not in ROLES or set(opening) != {"salt", "digest"}:
            raise Malformed("opening: members")
        opened[role] = unhex(opening["digest"], 32)
        commitment = commit(role, unhex(opening["salt"], 16), opened[role])
        need(claims.get(receipt.COMMITMENTS[role]) == commitment, f"opening: {role}")
    if caller.request:
        need(opened.get("request") == request_digest(*caller.request), "request: not the one that was answered")
    if caller.response:
        need(opened.get("response") == response_digest(*caller.response), "response: not the one that was given")


def _proof(bundle: dict, claims: dict, keys: dict, cose: bytes) -> str | None:
    if "proof" not in bundle:
        return None
    index, hashes_, note = log.parse_tlog_proof(bundle["proof"])
    name, public = log.parse_vkey(keys["log"])
    origin, size, tree_root = log.parse_checkpoint(log.parse_note(note)[0])
    need(log.note_verifies(note, name, public), "log: signature")
    need(origin == name and origin.endswith("/" + sha256(public).hex()[:16]), "log: origin")
    leaf = log.leaf(log.entry("receipt", sha256(cose)))
    need(log.included(index, size, leaf, hashes_, tree_root), "log: inclusion")
    need(index >= claims[receipt.SEQUENCE] + 2, "log: index")
    return log.parse_note(note)[0]


def _evidence(item, keyset_digest, note_text, cose, claims, root) -> bytes:
    """Judges one evidence object; returns the launch measurement."""
    purpose, nonce = item["purpose"], claims.get(receipt.NONCE)
    if purpose == "boot":
        expected = keyset.report_data(purpose, keyset_digest, None, keyset.bind_boot())
    elif purpose == "checkpoint":
        need(note_text is not None, "evidence: a checkpoint without a note")
        expected = keyset.report_data(purpose, keyset_digest, None, keyset.bind_checkpoint(note_text))
    elif purpose == "receipt":
        expected = keyset.report_data(purpose, keyset_digest, nonce, keyset.bind_receipt(cose))
    else:
        raise Malformed(f"evidence: purpose {purpose}")
    if item["tee"] != "sev-snp":
        raise Malformed(f"evidence: {item['tee']} is not judged here")
    said = unhex(item["nonce"]) if item["nonce"] is not None else None
    need(said == (nonce if purpose == "receipt" else None), "evidence: nonce")
    report = unb64(item["quote"])
    if len(report) != SIZE:
        raise Malformed("evidence: length of the report")
    need(report_field(report, "report_data") == expected, f"evidence: report data of purpose {purpose}")
    signatures(report, item["collateral"], root)
    return report_field(report, "measurement")


def signatures(report: bytes, collateral: dict, root: bytes) -> None:
    """Raises unless `report` is signed by a chain that ends at `root`, the ARK in DER."""
    ark = x509.load_der_x509_certificate(root)
    chain = [unb64(cert) for cert in collateral["chain"]]
    (ask,) = [x509.load_der_x509_certificate(cert) for cert in chain if cert != root]
    vek = x509.load_der_x509_certificate(unb64(collateral["vek"]))
    r, s = (int.from_bytes(report[start : start + 72], "little") for start in (SIGNED, SIGNED + 72))
    try:
        for child, parent in ((ark, ark), (ask, ark), (vek, ask)):
            need(child.issuer == parent.subject, "chain: names")
            _rsa(parent, child.signature, child.tbs_certificate_bytes)
        for encoded in collateral["crls"]:
            crl = x509.load_der_x509_crl(unb64(encoded))
            _rsa(ark, crl.signature, crl.tbs_certlist_bytes)
            need(crl.get_revoked_certificate_by_serial_number(ask.serial_number) is None, "chain: revoked")
        vek.public_key().verify(encode_dss_signature(r, s), report[:SIGNED], ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise Untrue("chain or report: signature") from None


def _rsa(parent, signature: bytes, signed: bytes) -> None:
    scheme = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    parent.public_key().verify(signature, signed, scheme, hashes.SHA384())
