"""Lies about the log: other trees, other notes, other keys, other positions."""

import secrets

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .. import keyset, log, receipt
from ..cases import Catalogue
from ..digests import sha256
from ..encoding import b64
from .tools import bundle, claim, items


def add(cases: Catalogue) -> None:
    def bad(name, hooks, exits=3, deciding=(), **values):
        cases.refused(f"log/{name}", exits, deciding, hooks=hooks, **values)

    def malformed(name, hooks, **values):
        bad(name, hooks, 2, ("log.proof.format", "bundle.format"), **values)

    def proof(change):
        return {"proof": lambda d, p: change(p)}

    malformed("proof-empty", proof(lambda p: ""))
    malformed("proof-version", proof(lambda p: p.replace("tlog-proof@v1", "tlog-proof@v2")))
    malformed("proof-index-leading-zero", proof(lambda p: p.replace("index ", "index 0")))
    malformed("proof-index-plus", proof(lambda p: p.replace("index ", "index +")))
    malformed("proof-index-enormous", proof(lambda p: p.replace("index 3", "index " + "9" * 40)))
    malformed("proof-index-missing", proof(lambda p: p.replace("index 3\n", "")))
    malformed("proof-index-twice", proof(lambda p: p.replace("index 3\n", "index 3\nindex 3\n")))
    malformed("proof-extra-line", proof(lambda p: p.replace("index 3\n", "extra AAAA\nindex 3\n")))
    malformed("proof-carriage-returns", proof(lambda p: p.replace("\n", "\r\n")))
    malformed("proof-hash-short", proof(lambda p: p.replace("index 3\n", f"index 3\n{b64(bytes(31))}\n")))
    malformed("proof-hash-not-base64", proof(lambda p: p.replace("index 3\n", "index 3\n****\n")))
    malformed("proof-65-hashes", {"hashes": lambda d, h: [bytes(32)] * 65})
    malformed("proof-no-note", proof(lambda p: p.split("\n\n")[0] + "\n\n"))
    malformed("proof-leading-newline", proof(lambda p: "\n" + p))
    malformed("note-unsigned", proof(lambda p: p.rpartition("\n\n")[0] + "\n"))
    malformed("note-no-newline-at-end", proof(lambda p: p[:-1]))
    malformed("note-hyphen-for-dash", proof(lambda p: p.replace("\u2014", "-")))
    malformed("note-trailing-text", proof(lambda p: p + "trailing\n"))
    malformed("note-seventeen-strangers", {"note": lambda d, n: _strangers(n, 17)})
    cases.open("log/note-sixteen-strangers", hooks={"note": lambda d, n: _strangers(n, 16)})
    malformed("note-signature-not-base64", proof(lambda p: p[:-10] + "*" + p[-9:]))
    malformed("checkpoint-extension-line", _text(lambda d, t: t + "extension\n"))
    malformed("checkpoint-size-leading-zero", _text(lambda d, t: t.replace("\n5\n", "\n05\n")))
    malformed("checkpoint-size-negative", _text(lambda d, t: t.replace("\n5\n", "\n-5\n")))
    malformed("checkpoint-size-missing", _text(lambda d, t: t.replace("\n5\n", "\n")))
    malformed("checkpoint-root-short", _text(lambda d, t: f"{d.enclave.origin}\n5\n{b64(bytes(31))}\n"))
    malformed("checkpoint-root-hex", _text(lambda d, t: f"{d.enclave.origin}\n5\n{'00' * 32}\n"))
    malformed("checkpoint-origin-empty", _text(lambda d, t: t.replace(d.enclave.origin, "", 1)))

    signature = "log.signature"
    bad("signature-bit", {"note": _signature_bit}, 3, signature)
    bad("signed-by-a-stranger", {"note": lambda d, n: log.sign_note(Ed25519PrivateKey.generate(), d.enclave.origin, d.note_text)}, 3, signature)
    bad("signed-under-the-hint-alone", {"note": _hint_alone}, 3, signature)
    bad("signed-by-the-receipt-key", {"note": lambda d, n: log.sign_note(d.enclave.receipt_key, d.enclave.origin, d.note_text)}, 3, signature)
    bad("strangers-alone", {"note": lambda d, n: _strangers(d.note_text + "\n", 3)}, 3, signature)
    bad("false-then-true-signature", {"note": lambda d, n: d.note_text + "\n" + _broken_line(d) + n.rpartition("\n\n")[2]}, 3, signature)
    cases.open("log/true-then-false-signature", hooks={"note": lambda d, n: n + _broken_line(d)})
    bad("signed-under-another-name", {"note": lambda d, n: log.sign_note(d.enclave.log_key, "enclave.example/log", d.note_text)}, 3, signature)

    bad("origin-other", _text(lambda d, t: t.replace(d.enclave.origin, "enclave.example/other", 1)), 3, "log.origin")
    bad("origin-without-key", {}, 3, "log.origin", world="keyset-origin-without-key")
    bad("origin-of-another-key", {}, 3, "log.origin", world="keyset-origin-of-another-key")
    bad("key-of-another-enclave", {}, 3, (signature, "log.origin"), world="keyset-log-of-another-enclave")

    inclusion = "log.inclusion"
    bad("index-one-more", {"proof": lambda d, p: p.replace("index 3\n", "index 4\n")}, 3, inclusion)
    bad("index-one-less", {"proof": lambda d, p: p.replace("index 3\n", "index 2\n")}, 3, (inclusion, "log.index"))
    bad("index-beyond", {"proof": lambda d, p: p.replace("index 3\n", "index 5\n")}, 3, inclusion)
    bad("hash-changed", {"hashes": lambda d, h: [bytes(32), *h[1:]]}, 3, inclusion)
    bad("hash-dropped", {"hashes": lambda d, h: h[:-1]}, 3, inclusion)
    bad("hash-added", {"hashes": lambda d, h: [*h, bytes(32)]}, 3, inclusion)
    bad("hashes-reversed", {"hashes": lambda d, h: h[::-1]}, 3, inclusion)
    bad("no-hashes", {"hashes": lambda d, h: []}, 3, inclusion)
    bad("root-other", _text(lambda d, t: log.checkpoint(d.enclave.origin, 5, secrets.token_bytes(32))), 3, inclusion)
    bad("size-other", _text(lambda d, t: t.replace("\n5\n", "\n9\n")), 3, inclusion)
    bad("size-zero", _text(lambda d, t: t.replace("\n5\n", "\n0\n")), (2, 3))
    bad("kind-amend", {"leaves": _leaf_of("amend")}, 3, inclusion)
    bad("kind-catalog", {"leaves": _leaf_of("catalog")}, 3, inclusion)
    bad("receipt-not-in-tree", {"leaves": _leaf(lambda d: log.leaf(log.entry("receipt", bytes(32))))}, 3, inclusion)
    bad("leaf-without-prefix", {"leaves": _leaf(lambda d: sha256(log.entry("receipt", sha256(d.cose))))}, 3, inclusion)
    bad("leaf-is-the-object", {"leaves": _leaf(lambda d: log.leaf(d.cose))}, 3, inclusion)
    bad("leaf-as-a-node", {"hashes": _node_confusion}, 3, inclusion)

    index = "log.index"
    bad("sequence-above-index", claim(receipt.SEQUENCE, 2), 3, index)
    bad("sequence-far-above", claim(receipt.SEQUENCE, 1 << 40), 3, index)
    bad("sequence-at-the-limit", claim(receipt.SEQUENCE, (1 << 64) - 1), 3, index)
    cases.holds("log/amended-before", hooks=claim(receipt.SEQUENCE, 0))
    bad("receipt-in-place-of-boot", {"leaves": lambda d, v: [log.leaf(log.entry("receipt", sha256(d.cose))), *v[1:]], "index": lambda d, i: 0}, 3, index, sequence=0)

    data = "evidence.report_data"
    bad("quote-of-another-checkpoint", {"evidence": _quote_of_other_checkpoint}, 3, data)
    bad("quote-of-note-with-signatures", {"evidence": _quote_over_whole_note}, 3, data)
    bad("checkpoint-evidence-of-boot", items(lambda d, e: e[0].update(quote=d.evidence("boot")["quote"])), 3, data)
    bad("boot-evidence-of-checkpoint", items(lambda d, e: e[0].update(purpose="boot")), 3, data)
    bad("checkpoint-evidence-relabelled-receipt", items(lambda d, e: e[0].update(purpose="receipt", nonce=d.nonce.hex())), 3, data)
    bad("two-labels-exchanged", items(_exchange_quotes), 3, data, twin="quoted")
    bad("nonce-beside-checkpoint", items(lambda d, e: e[0].update(nonce=d.nonce.hex())), (2, 3))
    bad("extra-evidence-of-another-enclave", {"evidence": _others_boot}, 3, data)
    stated = "guarantees.stated"
    bad("proof-stripped", bundle(lambda b: b.pop("proof")), (3, 4), (stated, data, "log.proof.format"))
    bad("proof-and-checkpoint-stripped", bundle(_unsealed), 4, (stated, "log.proof.format"))
    bad("checkpoint-not-quoted", items(lambda d, e: [d.evidence("boot")]), 4, stated)
    bad("no-evidence", items(lambda d, e: []), 4, twin="signed")
    bad("evidence-of-another-enclave-alone", {"evidence": lambda d, e: _others_boot(d, [])}, 3, data, twin="signed")


def _unsealed(b):
    del b["proof"]
    b["evidence"] = []


def _text(change):
    return {"note_text": change}


def _strangers(note, count):
    text, _, _ = note.rpartition("\n\n") if not note.endswith("\n\n") else (note[:-2], None, None)
    lines = [log.signature_line(Ed25519PrivateKey.generate(), f"w{n}.example", text + "\n") for n in range(count)]
    return note + "".join(lines)


def _signature_bit(draft, note):
    text, signatures = log.parse_note(note)
    name, id_, signature = signatures[0]
    return f"{text}\n\u2014 {name} {b64(id_ + signature[:-1] + bytes([signature[-1] ^ 1]))}\n"


def _broken_line(draft):
    public = draft.enclave.log_key.public_key().public_bytes_raw()
    return f"\u2014 {draft.enclave.origin} {b64(log.key_id(draft.enclave.origin, public) + bytes(64))}\n"


def _hint_alone(draft, note):
    """Another key signs under the name and the four-byte hint of the log's."""
    public = draft.enclave.log_key.public_key().public_bytes_raw()
    line = log.signature_line(
        Ed25519PrivateKey.generate(), draft.enclave.origin, draft.note_text, log.key_id(draft.enclave.origin, public)
    )
    return draft.note_text + "\n" + line


def _leaf(make):
    def change(draft, leaves):
        leaves[draft.sequence + 2] = make(draft)

    return change


def _leaf_of(kind):
    return _leaf(lambda d: log.leaf(log.entry(kind, sha256(d.cose))))


def _node_confusion(draft, hashes):
    """The receipt's own leaf offered as if it were its sibling."""
    return [draft.leaves[draft.index], *hashes[1:]]


def _requoted(draft, bind_text, evidence):
    data = keyset.report_data("checkpoint", draft.enclave.keyset_digest, None, sha256(bind_text.encode()))
    evidence[0]["quote"] = b64(draft.enclave.platform.report(data))


def _quote_of_other_checkpoint(draft, evidence):
    _requoted(draft, log.checkpoint(draft.enclave.origin, 4, log.root(draft.leaves[:4])), evidence)


def _quote_over_whole_note(draft, evidence):
    _requoted(draft, draft.note, evidence)


def _exchange_quotes(draft, evidence):
    evidence[0]["quote"], evidence[1]["quote"] = evidence[1]["quote"], evidence[0]["quote"]


def _others_boot(draft, evidence):
    other = draft.world.other
    item = draft.evidence("boot")
    data = keyset.report_data("boot", other.keyset_digest, None, keyset.bind_boot())
    item["quote"] = b64(other.platform.report(data))
    item["collateral"]["vek"] = b64(other.platform.vek)
    return [*evidence, item]
