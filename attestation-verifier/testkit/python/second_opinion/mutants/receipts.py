"""Lies in the receipt: bytes that are not canonical, claims that are not true, keys that are not the enclave's."""

import secrets

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .. import cbor, keyset, receipt
from ..cases import Catalogue
from ..digests import commit, object_digest
from ..encoding import b64
from ..worlds import IDENTITY
from .tools import bundle, claim, cose, flip, head_at, items, no_claim, parts, payload

# The order of the Ed25519 group (RFC 8032 section 5.1): S + L verifies for those who do not check S < L.
ORDER = 2**252 + 27742317777372353535851937790883648493


def add(cases: Catalogue) -> None:
    def bad(name, hooks, exits, deciding=(), **values):
        cases.refused(f"receipt/{name}", exits, deciding, hooks=hooks, **values)

    # CBOR and COSE
    format_ = ("receipt.format", "bundle.format")

    def malformed(name, hooks, **values):
        bad(name, hooks, 2, format_, **values)

    malformed("payload-long-integer", payload(lambda p: head_at(p, b"\x06\x1a", b"\x06\x1b\0\0\0\0")))
    malformed("payload-long-length", payload(lambda p: head_at(p, b"\x07\x50", b"\x07\x58\x10")))
    malformed("payload-indefinite-map", payload(lambda p: b"\xbf" + p[1:] + b"\xff"))
    malformed("payload-map-count", payload(lambda p: bytes([p[0] + 1]) + p[1:]))
    malformed("payload-trailing", payload(lambda p: p + b"\0"))
    malformed("payload-unsorted", {"payload": lambda d, p: _unsorted(d.claims)})
    malformed("payload-duplicate-claim", {"payload": lambda d, p: _with_pair(d.claims, 6, 1)})
    malformed("payload-empty", payload(lambda p: b""))
    malformed("payload-array", payload(lambda p: cbor.dumps([1, 2])))
    malformed("payload-tagged", payload(lambda p: cbor.head(6, 61) + p))
    malformed("payload-float", {"payload": lambda d, p: _with_pair(d.claims, 6, None, b"\xf9\x00\x00")})
    malformed("payload-text-not-utf8", payload(lambda p: p.replace(b"enclave.example", b"enclave.exampl\xff")))
    malformed("payload-integer-as-bignum", {"payload": lambda d, p: _with_pair(d.claims, 6, None, b"\xc2\x44\x6a\xb1\x3b\xfb")})
    malformed("untagged", cose(lambda c: c[1:]))
    malformed("another-tag", cose(lambda c: b"\xd1" + c[1:]))
    malformed("tag-long-form", cose(lambda c: b"\xd8\x12" + c[1:]))
    malformed("tagged-twice", cose(lambda c: b"\xd8\x3d" + c))
    malformed("trailing-byte", cose(lambda c: c + b"\0"))
    malformed("cut-short", cose(lambda c: c[:-1]))
    malformed("five-elements", cose(lambda c: c[:1] + b"\x85" + c[2:] + b"\x40"))
    malformed("unprotected-kid", parts(lambda d, h, u, p, s: receipt.assemble(h, p, s, cbor.dumps({4: bytes(8)}))))
    malformed("signature-65-bytes", parts(lambda d, h, u, p, s: receipt.assemble(h, p, s + b"\0")))
    malformed("signature-empty", parts(lambda d, h, u, p, s: receipt.assemble(h, p, b"")))
    malformed("detached-payload", parts(lambda d, h, u, p, s: b"\xd2\x84" + cbor.dumps(h) + b"\xa0\xf6" + cbor.dumps(s)))
    malformed("algorithm-eddsa", _header(lambda h: h | {1: -8}))
    malformed("algorithm-es256", _header(lambda h: h | {1: -7}))
    malformed("algorithm-missing", _header(lambda h: {4: h[4]}))
    malformed("kid-seven-bytes", _header(lambda h: h | {4: h[4][:7]}))
    malformed("kid-missing", _header(lambda h: {1: -19}))
    malformed("header-extra", _header(lambda h: h | {3: 60}))
    malformed("header-critical", _header(lambda h: h | {2: [4]}))
    malformed("header-empty", {"cose": lambda d, c: _signed_under(d, b"")})
    malformed("header-long-form", {"cose": lambda d, c: _signed_under(d, cbor.loads(c).value[0].replace(b"\x32", b"\x38\x12"))})
    malformed("over-four-kib", claim(receipt.ISS, "x" * 4100))
    cases.open("receipt/kid-of-another-key", hooks=_header(lambda h: h | {4: bytes(8)}))

    # claims out of shape, honestly signed
    malformed("unknown-claim", claim(-65610, 1))
    malformed("unknown-claim-text", claim("note", 1))
    malformed("expiry-claim", claim(4, 1))
    malformed("profile-other", claim(receipt.PROFILE_LABEL, "urn:uuid:00000000-0000-0000-0000-000000000000"))
    malformed("profile-upper-case", claim(receipt.PROFILE_LABEL, receipt.PROFILE.upper()))
    malformed("iss-too-long", claim(receipt.ISS, "x" * 257))
    malformed("iss-bytes", claim(receipt.ISS, b"enclave.example"))
    malformed("iat-text", claim(receipt.IAT, "now"))
    malformed("iat-negative", claim(receipt.IAT, -1))
    malformed("cti-short", claim(receipt.CTI, bytes(15)))
    malformed("nonce-seven-bytes", claim(receipt.NONCE, bytes(7)))
    malformed("nonce-65-bytes", claim(receipt.NONCE, bytes(65)))
    malformed("sequence-negative", claim(receipt.SEQUENCE, -1))
    malformed("digest-short", claim(receipt.MODEL, bytes(31)))
    malformed("digest-long", claim(receipt.REQUEST, bytes(33)))
    malformed("digest-as-hex", claim(receipt.MODEL, lambda v: v.hex()))
    malformed("catalog-one-element", claim(receipt.CATALOG, lambda v: v[:1]))
    malformed("catalog-three-elements", claim(receipt.CATALOG, lambda v: [*v, 0]))
    malformed("status-text", claim(receipt.STATUS, "ok"))
    for label, word in ((receipt.ISS, "iss"), (receipt.IAT, "iat"), (receipt.CTI, "cti"), (receipt.PROFILE_LABEL, "profile"),
                        (receipt.SEQUENCE, "sequence"), (receipt.KEYSET, "keyset"), (receipt.GUARANTEES, "guarantees"),
                        (receipt.CATALOG, "catalog"), (receipt.REQUEST, "request"), (receipt.STATUS, "status"),
                        (receipt.OUTPUTS, "outputs"), (receipt.MODEL, "model")):  # fmt: skip
        malformed(f"no-{word}", no_claim(label))
    malformed("refusal-with-outputs", claim(receipt.STATUS, 422))
    malformed("guarantees-empty", claim(receipt.GUARANTEES, []))
    malformed("guarantees-unsorted", claim(receipt.GUARANTEES, ["signed", "logged"]))
    malformed("guarantees-twice", claim(receipt.GUARANTEES, ["logged", "logged", "signed"]))
    malformed("guarantees-not-closed", claim(receipt.GUARANTEES, ["logged"]))
    malformed("guarantees-text", claim(receipt.GUARANTEES, "logged signed"))
    malformed("guarantees-unknown", claim(receipt.GUARANTEES, ["logged", "signed", "verified"]))
    malformed("guarantees-capital", claim(receipt.GUARANTEES, ["Logged", "signed"]))

    # guarantees that do not hold
    stated = "guarantees.stated"
    bad("states-proven", claim(receipt.GUARANTEES, ["logged", "proven", "signed"]), (2, 4), (stated, *format_))
    bad("states-recomputed", claim(receipt.GUARANTEES, ["logged", "recomputed", "signed"]), 4, stated)
    bad("states-quoted", claim(receipt.GUARANTEES, ["logged", "quoted", "signed"]), 4, stated)
    bad("states-logged", claim(receipt.GUARANTEES, ["logged", "signed"]), 4, (stated, "log.proof.format"), twin="signed")

    # whose signature
    bad("signature-bit", cose(lambda c: flip(c, -1)), 3, "receipt.signature")
    bad("signature-plus-order", parts(_plus_order), 3, "receipt.signature")
    bad("signature-zero", parts(lambda d, h, u, p, s: receipt.assemble(h, p, bytes(64))), 3, "receipt.signature")
    bad("signature-identity-point", parts(lambda d, h, u, p, s: receipt.assemble(h, p, b"\1" + bytes(63))), 3, "receipt.signature")
    bad("another-key", {"cose": lambda d, c: receipt.sign(Ed25519PrivateKey.generate(), d.claims)}, 3, "receipt.signature")
    bad("log-key-signs", {"cose": lambda d, c: receipt.sign(d.enclave.log_key, d.claims)}, 3, "receipt.signature")
    bad("payload-changed-after", parts(lambda d, h, u, p, s: receipt.assemble(h, cbor.dumps(d.claims | {receipt.IAT: d.claims[receipt.IAT] + 1}), s)), 3, "receipt.signature")
    bad("aad-not-empty", {"cose": _with_aad}, 3, "receipt.signature")
    bad("raw-payload-signed", {"cose": lambda d, c: receipt.assemble(cbor.loads(c).value[0], d.payload(), d.enclave.receipt_key.sign(d.payload()))}, 3, "receipt.signature")
    identity = parts(lambda d, h, u, p, s: receipt.assemble(h, p, IDENTITY + bytes(32)))
    bad("small-order-key", identity, (2, 3), world="keyset-small-order")

    # what it binds
    binding = "receipt.keyset"
    bad("keyset-claim-other", claim(receipt.KEYSET, bytes(32)), 3, binding)
    bad("iss-other", claim(receipt.ISS, "other.example"), 3, binding)
    bad("keyset-swapped", {"bundle": lambda d, b: b.update(keyset=d.world.other.keyset)}, 3, (binding, "receipt.signature"))
    bad("keyset-name-changed", bundle(lambda b: b.update(keyset=b["keyset"] | {"name": "other.example"})), 3, binding)
    bad("keyset-software-changed", bundle(lambda b: b.update(keyset=b["keyset"] | {"software": "0" * 64})), 3, binding)
    bad("keyset-lifetime-stretched", bundle(lambda b: b.update(keyset=b["keyset"] | {"not_after": b["keyset"]["not_after"] + 1})), 3, binding)
    bad("keyset-own-with-old-quotes", {"claims": _own_keyset, "bundle": lambda d, b: b.update(keyset=d.own_keyset)}, 3)
    for role, label in receipt.COMMITMENTS.items():
        name = f"opening.{role}"
        bad(f"opening-{role}-salt", bundle(lambda b, r=role: b["openings"][r].update(salt="00" * 16)), 3, name)
        bad(f"opening-{role}-digest", bundle(lambda b, r=role: b["openings"][r].update(digest="11" * 32)), 3, name)
        bad(f"commitment-{role}-resigned", claim(label, bytes(32)), 3, name)
    bad("openings-crossed", bundle(_crossed), 3, ("opening.request", "opening.response", "opening.inputs", "opening.outputs"))
    bad("role-crossed", {"claims": _role_crossed}, 3, "opening.outputs")

    # catalog
    catalog = "receipt.catalog"
    bad("catalog-claim-other", claim(receipt.CATALOG, [0, bytes(32)]), 3, catalog)
    bad("catalog-epoch-claim", claim(receipt.CATALOG, lambda v: [v[0] + 1, v[1]]), 3, catalog)
    bad("catalog-edited", bundle(lambda b: b["catalog"]["models"][1].update(name="other")), 3, catalog)
    bad("catalog-of-another-keyset", {"catalog": lambda d, c: c.update(keyset_digest="00" * 32)}, 3, catalog)
    bad("catalog-without-the-pair", {"catalog": lambda d, c: c["models"].pop(0) and None}, 3, catalog)
    bad("catalog-pair-split", {"catalog": _split_pair}, 3, catalog)
    bad("catalog-empty", {"catalog": lambda d, c: c.update(models=[])}, 3, catalog)

    # time and status
    bad("iat-before-keyset", claim(receipt.IAT, lambda v: v - 601), 4, "keyset.lifetime")
    bad("iat-after-keyset", {}, 4, "keyset.lifetime", world="keyset-ended")
    bad("iat-in-the-future", claim(receipt.IAT, lambda v: v + 3600), 4, "receipt.clock")
    bad("keyset-span", {}, 4, "keyset.span", world="keyset-long")
    bad("keyset-reversed", {}, (2, 4), world="keyset-reversed")
    bad("not-fresh", claim(receipt.IAT, lambda v: v - 500), 4, "receipt.fresh", policy={"fresh_seconds": "{ expect = 300 }"})
    refusal = {"claims": _refusal, "bundle": lambda d, b: [b["openings"].pop(r) for r in ("inputs", "outputs")] and None}
    bad("a-refusal", refusal, 4, "receipt.status")
    bad("a-refusal-resolved", refusal | {"claims": lambda d, c: _refusal(d, c, resolved=True)}, 4, "receipt.status")

    # replay between receipts
    bad("nonce-absent", {}, 4, "receipt.nonce", nonce=None)
    bad("quote-of-another-nonce", items(_quote_with_other_nonce), (2, 3), ("evidence.nonce", "evidence.report_data", "bundle.format", "evidence.format"), twin="quoted")
    bad("quote-for-another-receipt", items(_quote_for_other_receipt), 3, "evidence.report_data", twin="quoted")
    bad("quote-without-nonce", items(_quote_without_nonce), 3, "evidence.report_data", twin="quoted")
    bad("nonce-only-in-evidence", items(_nonce_beside), (2, 3), twin="quoted-without-nonce")
    bad("quoted-by-checkpoint-alone", items(lambda d, e: e[:1]), 4, stated, twin="quoted")


def _with_pair(claims, label, value, encoded=None):
    """The map with one pair written a second time, or with its value in other bytes."""
    pairs = sorted((cbor.dumps(k), cbor.dumps(v)) for k, v in claims.items())
    key = cbor.dumps(label)
    if encoded is not None:
        return cbor.head(5, len(pairs)) + b"".join(k + (encoded if k == key else v) for k, v in pairs)
    at = next(i for i, (k, _) in enumerate(pairs) if k == key)
    pairs.insert(at, (key, cbor.dumps(value)))
    return cbor.head(5, len(pairs)) + b"".join(k + v for k, v in pairs)


def _unsorted(claims):
    pairs = sorted((cbor.dumps(k), cbor.dumps(v)) for k, v in claims.items())
    pairs[0], pairs[1] = pairs[1], pairs[0]
    return cbor.head(5, len(pairs)) + b"".join(k + v for k, v in pairs)


def _signed_under(draft, protected):
    body = draft.payload()
    return receipt.assemble(protected, body, draft.enclave.receipt_key.sign(receipt.to_be_signed(protected, body)))


def _header(change):
    return {"cose": lambda d, c: _signed_under(d, cbor.dumps(change(cbor.loads(cbor.loads(c).value[0]))))}


def _plus_order(draft, protected, unprotected, body, signature):
    s = int.from_bytes(signature[32:], "little") + ORDER
    return receipt.assemble(protected, body, signature[:32] + s.to_bytes(32, "little"))


def _with_aad(draft, data):
    protected, _, body, _ = cbor.loads(data).value
    signed = cbor.dumps(["Signature1", protected, b"aad", body])
    return receipt.assemble(protected, body, draft.enclave.receipt_key.sign(signed))


def _own_keyset(draft, claims):
    """A keyset beside the quotes that were made for another: worthless until recomputed into them."""
    draft.own_keyset = draft.enclave.keyset | {"config": "5a" * 32}
    claims[receipt.KEYSET] = object_digest(draft.own_keyset)


def _crossed(b):
    openings = b["openings"]
    openings["request"], openings["response"] = openings["response"], openings["request"]


def _role_crossed(draft, claims):
    claims[receipt.OUTPUTS] = commit("inputs", draft.salts["outputs"], draft.digests["outputs"])


def _split_pair(draft, catalog):
    """Both digests stand in the catalog, in two different rows."""
    first, second = catalog["models"][:2]
    first["config_digest"], second["config_digest"] = second["config_digest"], first["config_digest"]


def _refusal(draft, claims, resolved=False):
    claims[receipt.STATUS] = 422
    for label in (receipt.INPUTS, receipt.OUTPUTS) + (() if resolved else (receipt.MODEL, receipt.CONFIG)):
        del claims[label]


def _requote(draft, evidence, nonce, cose_):
    data = keyset.report_data("receipt", draft.enclave.keyset_digest, nonce, keyset.bind_receipt(cose_))
    item = next(e for e in evidence if e["purpose"] == "receipt")
    item["quote"] = b64(draft.enclave.platform.report(data))
    return item


def _quote_with_other_nonce(draft, evidence):
    other = secrets.token_bytes(32)
    _requote(draft, evidence, other, draft.cose)["nonce"] = other.hex()


def _quote_for_other_receipt(draft, evidence):
    other = receipt.sign(draft.enclave.receipt_key, draft.claims | {receipt.CTI: bytes(16)})
    _requote(draft, evidence, draft.nonce, other)


def _quote_without_nonce(draft, evidence):
    _requote(draft, evidence, None, draft.cose)


def _nonce_beside(draft, evidence):
    next(e for e in evidence if e["purpose"] == "receipt")["nonce"] = "00" * 32
