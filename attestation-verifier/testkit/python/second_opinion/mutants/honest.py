"""What must be accepted: the twins of all the lies."""

import secrets

from .. import log, receipt
from ..cases import Catalogue
from ..digests import sha256
from ..encoding import b64
from ..worlds import CSP
from .tools import bundle, items, reports

WITHOUT_NONCE = {"nonce": None, "policy": {"nonce": '{ waive = "the caller sent none" }'}}


def _root_in_chain(draft, evidence):
    for item in evidence:
        item["collateral"]["chain"].append(b64(draft.enclave.platform.pki.ark))


def _root_first(draft, evidence):
    for item in evidence:
        item["collateral"]["chain"].insert(0, b64(draft.enclave.platform.pki.ark))


def _stranger_signs_too(draft, note):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    text, _ = log.parse_note(note)
    return note + log.signature_line(Ed25519PrivateKey.generate(), "witness.example/w1", text)


def _full_of_other_signatures(draft, note):
    for _ in range(15):
        note = _stranger_signs_too(draft, note)
    return note


def _many(draft, leaves):
    return leaves + [log.leaf(secrets.token_bytes(32)) for _ in range(997)]


def _unicode(b):
    # U+10000 sorts before U+FB33 by UTF-16 code units and after it by code points.
    b["view"] = {"\ufb33": "dalet", "\U00010000": "linear b", "€": '"\\\b\f\n\r\t\x01\x7f/', "nested": [[], {}, None, -1]}


def add(cases: Catalogue) -> None:
    cases.holds("signed", level="boot")
    cases.holds("logged")
    cases.holds("logged-binary", binary=True)
    cases.holds("quoted", level="quoted")
    cases.holds("without-nonce", **WITHOUT_NONCE)
    cases.holds("quoted-without-nonce", level="quoted", **WITHOUT_NONCE)
    cases.holds("first-receipt", sequence=0)
    cases.holds("later-receipt", sequence=300)
    cases.holds("report-version-3", world="genoa3", level="quoted")
    cases.holds("turin", world="turin")
    cases.holds("milan-by-policy", world="milan", policy={"snp.product": '{ expect = ["Milan"] }'})
    vlek = {"snp.signing_key": '{ expect = ["vlek"] }', "snp.vlek.csp": f'{{ expect = ["{CSP}"] }}'}
    cases.holds("vlek-by-policy", world="vlek", policy=vlek)
    cases.holds("all-three-evidence", level="quoted", hooks=items(lambda d, e: [*e, d.evidence("boot")]))
    cases.holds("root-repeated-in-chain", hooks=items(_root_in_chain))
    cases.holds("root-first-in-chain", hooks=items(_root_first))
    cases.holds("evidence-in-another-order", level="quoted", hooks=items(lambda d, e: e[::-1]))
    cases.holds("nonce-of-eight-bytes", nonce=b"8 bytes!")
    cases.holds("nonce-of-64-bytes", nonce=bytes(range(64)), level="quoted")
    cases.holds("name-of-256-bytes", world="keyset-long-name")
    cases.holds("name-in-another-script", world="keyset-unicode-name")
    cases.holds("two-openings", hooks=bundle(lambda b: [b["openings"].pop(role) for role in ("inputs", "outputs")]))
    cases.holds("last-second-of-the-keyset", world="keyset-last-second")
    cases.holds("largest-tree-index", sequence=2000)
    cases.open("every-platform-feature", twin="logged", hooks=reports(platform_info=0x25 | 1 << 7))
    cases.holds("cosigned-by-a-stranger", hooks={"note": _stranger_signs_too})
    cases.holds("sixteen-signatures", hooks={"note": _full_of_other_signatures})
    cases.holds("tree-of-a-thousand", hooks={"leaves": _many})
    cases.holds("without-catalog", hooks=bundle(lambda b: b.pop("catalog")))
    cases.holds("without-view", hooks=bundle(lambda b: b.pop("view")))
    cases.holds("without-attachments", hooks=bundle(lambda b: b.pop("attachments")))
    cases.holds("unicode-view", hooks=bundle(_unicode))
    attachment = {"type": "example.com/voucher/1", "data": "anything"}
    cases.holds("unknown-attachment", hooks=bundle(lambda b: b["attachments"].append(attachment)))
    cases.holds("keyset-with-every-member", world="full-keyset")
    cases.holds("rotated-catalog", world="second-epoch")
    cases.holds(
        "receipt-only",
        given={"omit": ("request", "response")},
        arguments=("--receipt-only",),
        hooks=bundle(lambda b: b["openings"].clear()),
    )
    cases.holds("simulation-expected", exits=0, arguments=("--expect-simulated",))
    cases.holds("several-roots-named", roots="all")
    cases.holds("tensors-compared", given={"inputs": True, "outputs": True})
    cases.holds("demanded", level="quoted", arguments=("--require", "quoted logged signed"))
    cases.holds(
        "stated-less-than-it-has",
        hooks={"claims": lambda d, c: c.update({receipt.GUARANTEES: ["signed"]})},
        arguments=("--require", "logged signed"),
    )
    cases.holds("extra-key-hint-free", hooks={"leaves": lambda d, v: [*v, log.leaf(log.entry("close", sha256(b"")))]})
