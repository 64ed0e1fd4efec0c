"""Malformed: the same meaning in bytes that are not canonical, out of bounds, or of another kind."""

from ..cases import Catalogue
from ..encoding import b64, unb64
from .tools import bundle, items, raw, reopened, text

FORMAT = "bundle.format"


def add(cases: Catalogue) -> None:
    def bad(name, hooks, exits=2, deciding=FORMAT, **values):
        cases.refused(f"encoding/{name}", exits, deciding, hooks=hooks, **values)

    bad("no-newline", raw(lambda f: f[:-1]))
    bad("two-newlines", raw(lambda f: f + b"\n"))
    bad("carriage-return", raw(lambda f: f[:-1] + b"\r\n"))
    bad("byte-order-mark", raw(lambda f: b"\xef\xbb\xbf" + f))
    bad("leading-space", raw(lambda f: b" " + f))
    bad("second-object", raw(lambda f: f[:-1] + f))
    bad("trailing-zero", raw(lambda f: f + b"\0"))
    bad("empty-file", raw(lambda f: b""))
    bad("array", raw(lambda f: b"[" + f[:-1] + b"]\n"))
    bad("cut-in-half", raw(lambda f: f[: len(f) // 2]))
    bad("space-after-colon", text('"v":"touchstone/bundle/1"', '"v": "touchstone/bundle/1"'))
    bad("members-unsorted", raw(lambda f: b'{"v":"touchstone/bundle/1",' + f[1:].replace(b',"v":"touchstone/bundle/1"}\n', b"}\n")))
    bad("duplicate-version", text('"v":"touchstone/bundle/1"', '"v":"touchstone/bundle/1","v":"touchstone/bundle/1"'))
    bad("duplicate-receipt", raw(lambda f: f.replace(b'"receipt":', b'"receipt":"AAAA","receipt":', 1)))
    bad("duplicate-by-escape", raw(lambda f: f.replace(b'"receipt":', b'"receipt":"AAAA","\\u0072eceipt":', 1)))
    bad("duplicate-in-keyset", raw(lambda f: f.replace(b'"name":"enclave', b'"name":"other","name":"enclave', 1)))
    bad("duplicate-in-view", text('{"note":"for people"}', '{"note":"a","note":"for people"}'))
    bad("escaped-slash", raw(lambda f: f.replace(b'"touchstone/bundle/1"', b'"touchstone\\/bundle\\/1"')))
    bad("escaped-letter", text('"for people"', '"\\u0066or people"'))
    bad("upper-case-escape", text('"for people"', '"\\u001F"'))
    bad("lone-surrogate", text('"for people"', '"\\ud800"'))
    bad("invalid-utf8", raw(lambda f: f.replace(b"for people", b"for \xff people")))
    bad("overlong-utf8", raw(lambda f: f.replace(b"for people", b"for \xc0\xaf people")))
    bad("raw-control-character", raw(lambda f: f.replace(b"for people", b"for\x01people")))
    bad("exponent", text('"epoch":0', '"epoch":0e0'))
    bad("fraction", text('"epoch":0', '"epoch":0.0'))
    bad("minus-zero", text('"epoch":0', '"epoch":-0'))
    bad("leading-zero", text('"epoch":0', '"epoch":00'))
    bad("number-in-quotes", bundle(lambda b: b["catalog"].update(epoch="0")))
    bad("integer-too-large", text('"epoch":0', '"epoch":9007199254740992'))
    bad("integer-enormous", raw(lambda f: f.replace(b'"for people"', b"1" * 5000)))
    cases.open("encoding/fraction-in-view", hooks=raw(lambda f: f.replace(b'"for people"', b"0.5")))
    cases.open("encoding/large-integer-in-view", hooks=raw(lambda f: f.replace(b'"for people"', b"9007199254740992")))
    cases.open("encoding/boolean-in-view", hooks=raw(lambda f: f.replace(b'"for people"', b"true")))
    bad("not-a-number", raw(lambda f: f.replace(b'"for people"', b"NaN")))
    bad("seventeen-deep", raw(lambda f: f.replace(b'"for people"', b"[" * 15 + b"]" * 15)))
    bad("very-deep", raw(lambda f: f.replace(b'"for people"', b"[" * 200000 + b"]" * 200000)))
    bad("unclosed-deep", raw(lambda f: b"[" * 300000))
    bad("over-four-mebibytes", bundle(lambda b: b["view"].update(note="x" * (4 << 20))))
    cases.holds("encoding/sixteen-deep", hooks=raw(lambda f: f.replace(b'"for people"', b"[" * 14 + b"]" * 14)))
    cases.holds("encoding/three-mebibytes", hooks=bundle(lambda b: b["view"].update(note="x" * (3 << 20))))

    # objects
    bad("version-2", bundle(lambda b: b.update(v="touchstone/bundle/2")))
    bad("no-version", bundle(lambda b: b.pop("v")))
    bad("unknown-member", bundle(lambda b: b.update(extra=None)))
    bad("no-receipt", bundle(lambda b: b.pop("receipt")))
    bad("no-keyset", bundle(lambda b: b.pop("keyset")))
    bad("proof-null", bundle(lambda b: b.update(proof=None)))
    bad("receipt-a-number", bundle(lambda b: b.update(receipt=1)))
    bad("view-a-boolean-proof", bundle(lambda b: b.update(proof=[])))
    bad("opening-unknown-role", bundle(lambda b: b["openings"].update(prompt=b["openings"]["request"])))
    bad("opening-unknown-member", reopened("request", why="because"))
    bad("opening-without-salt", bundle(lambda b: b["openings"]["request"].pop("salt")))
    bad("opening-upper-case", bundle(lambda b: b["openings"]["request"].update(digest=b["openings"]["request"]["digest"].upper())))
    bad("opening-salt-short", bundle(lambda b: b["openings"]["request"].update(salt="00" * 15)))
    bad("attachment-without-type", bundle(lambda b: b["attachments"].append({"data": "x"})))
    bad("attachment-a-string", bundle(lambda b: b["attachments"].append("x")))
    bad("boolean-in-attachment", bundle_text_boolean())
    bad("catalog-unknown-member", bundle(lambda b: b["catalog"].update(signed="yes")))
    bad("catalog-duplicate-model", {"catalog": lambda d, c: c["models"].append(c["models"][0])})
    bad("catalog-version", {"catalog": lambda d, c: c.update(v="touchstone/catalog/2")})
    bad("catalog-epoch-negative", {"catalog": lambda d, c: c.update(epoch=-1)}, twin="signed")

    # base64
    bad("base64-unpadded", bundle(_unpadded))
    bad("base64-pad-bits", bundle(_pad_bits))
    bad("base64-url", bundle(lambda b: b.update(receipt=b["receipt"][:-8] + "-_-_" + b["receipt"][-4:])))
    bad("base64-newline", bundle(lambda b: b.update(receipt=b["receipt"][:64] + "\n" + b["receipt"][64:])))
    bad("base64-space", bundle(lambda b: b["evidence"][0].update(quote=" " + b["evidence"][0]["quote"])))

    # evidence
    bad("purpose-null", items(lambda d, e: e[0].update(purpose=None)), deciding=("bundle.format", "evidence.purpose", "evidence.format"))
    bad("purpose-session", items(lambda d, e: [d.evidence("session")]), deciding=("bundle.format", "evidence.purpose", "evidence.format"))
    bad("purpose-session-beside", items(lambda d, e: [*e, d.evidence("session")]), deciding=("bundle.format", "evidence.purpose", "evidence.format"))
    evidence = ("bundle.format", "evidence.format")
    bad("purpose-unknown", items(lambda d, e: e[0].update(purpose="audit")), deciding=evidence)
    bad("purpose-capital", items(lambda d, e: e[0].update(purpose="Checkpoint")), deciding=evidence)
    bad("purpose-missing", items(_without("purpose")), deciding=evidence)
    bad("tee-unknown", items(lambda d, e: e[0].update(tee="sgx")), deciding=evidence)
    bad("evidence-unknown-member", items(lambda d, e: e[0].update(accepted="yes")), deciding=evidence)
    bad("evidence-member-missing", items(_without("quote")), deciding=evidence)
    bad("evidence-twice", items(lambda d, e: [*e, *e]), deciding=(*evidence, "evidence.purpose"))
    bad("evidence-four", items(lambda d, e: [*e, *e, *e, *e]), deciding=(*evidence, "evidence.purpose"))
    bad("collateral-unknown-member", items(lambda d, e: e[0]["collateral"].update(ark="AAAA")), deciding=evidence)
    bad("collateral-of-tdx", items(lambda d, e: e[0].update(tee="tdx")), deciding=evidence)
    cases.open("encoding/event-log-beside-a-report", hooks=items(lambda d, e: e[0].update(event_log={"format": "text", "data": "AAAA"})))
    report = ("bundle.format", "evidence.format", "snp.format")
    bad("quote-short", items(_quote(lambda q: q[:-1])), deciding=report)
    bad("quote-long", items(_quote(lambda q: q + b"\0")), deciding=report)
    bad("quote-long-by-text", items(_quote(lambda q: q + b"tail")), deciding=report)
    bad("quote-empty", items(_quote(lambda q: b"")), deciding=report)
    bad("quote-over-16-kib", items(_quote(lambda q: q + bytes(16 << 10))), deciding=report)
    bad("collateral-over-a-mebibyte", items(lambda d, e: e[0]["collateral"]["chain"].append(b64(bytes(1 << 20)))), deciding=evidence)

    # keyset
    def keyset(name, world, **values):
        bad(f"keyset-{name}", {}, world=world, deciding=("bundle.format", "keyset.format"), twin="logged", **values)

    for name in (
        "unknown-member", "no-software", "empty-ohttp", "empty-spki", "previous-empty", "upper-case-digest", "key-31-bytes",
        "key-no-prefix", "key-of-another-kind", "log-hash-wrong", "log-not-ed25519", "name-too-long", "name-a-number",
        "negative-time", "version-2", "over-8-kib", "ohttp-base64",
    ):  # fmt: skip
        keyset(name, f"keyset-{name}")


def bundle_text_boolean() -> dict:
    """JCS over strings, integers, arrays, objects and null: a boolean is none of these."""
    return raw(lambda f: f.replace(b'"attachments":[]', b'"attachments":[{"paid":true,"type":"x"}]'))


def _without(member):
    def each(_, evidence):
        del evidence[0][member]

    return each


def _quote(change):
    def each(_, evidence):
        for item in evidence:
            item["quote"] = b64(change(unb64(item["quote"])))

    return each


def _unpadded(b):
    # Salted so that there is padding to strip, whatever the receipt's length.
    while not b["receipt"].endswith("="):
        b["receipt"] = b64(unb64(b["receipt"]) + b"\0")
    b["receipt"] = b["receipt"].rstrip("=")


def _pad_bits(b):
    quote = b["evidence"][0]["quote"]
    if not quote.endswith("="):
        raise ValueError("the report's length leaves no pad bits")
    last = quote.rstrip("=")[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stripped = quote.rstrip("=")
    b["evidence"][0]["quote"] = stripped[:-1] + alphabet[alphabet.index(last) | 1] + "=" * (len(quote) - len(stripped))

