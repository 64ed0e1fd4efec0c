#!/usr/bin/env python3
"""Checks the second implementation against the known answers of the specification.

    vectors.py [FILE]      FILE: v1.json (default: the copy that the formats crate tests with)
"""

import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pyhpke.kem_key import KEMKeyPair

from second_opinion import bhttp, cbor, digests, jcs, keyset, log, ohttp, receipt
from second_opinion.encoding import b64

DEFAULT = Path(__file__).resolve().parents[2] / "formats" / "testdata" / "v1.json"


class Checks:
    def __init__(self):
        self.count, self.failed = 0, []

    def equal(self, name, found, expected):
        self.count += 1
        if found != expected:
            self.failed.append(f"{name}: found {found!r}, expected {expected!r}")


# RFC 9458, appendix A.
SECRET = "3c168975674b2fa8e465970b79c8dcf09f1c741626480bd4c6162fc5b6a98e1a"
KEYS = "002d01002031e1f05a740102115220e9af918f738674aec95f54db6e04eb705aae8e79815500080001000100010003"
EPHEMERAL = "bc51d5e930bda26589890ac7032f70ad12e4ecb37abb1b65b1256c9c48999c73"
REQUEST = "00034745540568747470730b6578616d706c652e636f6d012f"
SEALED_REQUEST = (
    "010020000100014b28f881333e7c164ffc499ad9796f877f4e1051ee6d31bad19dec96c208b4726374e469135906992e"
    "1268c594d2a10c695d858c40a026e7965e7d86b83dd440b2c0185204b4d63525"
)
ANSWER, ANSWER_NONCE = "0140c8", "c789e7151fcba46158ca84b04464910d"
SEALED_ANSWER = "c789e7151fcba46158ca84b04464910d86f9013e404feea014e7be4a441f234f857fbd"
# RFC 9292, figure 13.
MESSAGE = (
    "0003474554056874747073000a2f68656c6c6f2e747874406c0a757365722d6167656e74346375726c2f372e31362e33206c69626375726c2f372e3136"
    "2e33204f70656e53534c2f302e392e376c207a6c69622f312e322e3304686f73740f7777772e6578616d706c652e636f6d0f6163636570742d6c616e67"
    "7561676506656e2c206d690000"
)


def check_ohttp(checks: Checks) -> None:
    """The examples of the RFCs, in both roles."""
    unhex, kem = bytes.fromhex, ohttp.SUITE.kem
    key_id, public = ohttp.configuration(unhex(KEYS))
    secret = kem.deserialize_private_key(unhex(EPHEMERAL))
    pair = KEMKeyPair(secret, kem.deserialize_public_key(secret.raw.public_key().public_bytes_raw()))
    sealed, waiting = ohttp.seal(key_id, public, unhex(REQUEST), pair)
    checks.equal("RFC 9458: sealed request", sealed.hex(), SEALED_REQUEST)
    content, answering = ohttp.unseal(unhex(SECRET), sealed)
    checks.equal("RFC 9458: request", content.hex(), REQUEST)
    checks.equal("RFC 9458: both ends", answering, waiting)
    checks.equal("RFC 9458: sealed answer", answering.seal(unhex(ANSWER), unhex(ANSWER_NONCE)).hex(), SEALED_ANSWER)
    checks.equal("RFC 9458: answer", waiting.open(unhex(SEALED_ANSWER)).hex(), ANSWER)
    checks.equal("RFC 9458: the request is one of RFC 9292's", bhttp.read_request(content), (["GET", "https", "example.com", "/"], [], b""))
    checks.equal("RFC 9458: so is the answer", bhttp.read_answer(unhex(ANSWER)), (200, [], b""))
    control, fields, content = bhttp.read_request(unhex(MESSAGE))
    checks.equal("RFC 9292: request read", (control, fields[1]), (["GET", "https", "", "/hello.txt"], ("host", "www.example.com")))
    checks.equal("RFC 9292: request written", bhttp.request("GET", "", "/hello.txt", fields, content).hex(), MESSAGE)
    for size in (0, 63, 64, 16383, 16384, (1 << 30) - 1, 1 << 30):
        checks.equal(f"RFC 9000: {size}", bhttp.Reader(bhttp.number(size)).number(), size)
    both = bhttp.answer(503, fields, b"late")
    checks.equal("an answer read back", bhttp.read_answer(both), (503, fields, b"late"))


def check(vectors: dict) -> Checks:
    checks, unhex = Checks(), bytes.fromhex
    receipt_key = Ed25519PrivateKey.from_private_bytes(unhex(vectors["keys"]["receipt_seed"]))
    log_key = Ed25519PrivateKey.from_private_bytes(unhex(vectors["keys"]["log_seed"]))
    log_public = log_key.public_key().public_bytes_raw()

    ks = vectors["keyset"]
    checks.equal("keyset jcs", jcs.dumps(ks["object"]).decode(), ks["jcs"])
    checks.equal("keyset read", jcs.loads(ks["jcs"].encode()), ks["object"])
    checks.equal("keyset digest", keyset.check(ks["object"]).hex(), ks["digest"])
    checks.equal("keyset receipt key", keyset.receipt_key(ks["object"]), receipt_key.public_key().public_bytes_raw())

    r = vectors["request"]
    found = digests.request_digest(r["method"], r["path"], r["header_length"], unhex(r["body"]))
    checks.equal("request digest", found.hex(), r["digest"])
    r = vectors["response"]
    found = digests.response_digest(r["status"], r["header_length"], unhex(r["body"]))
    checks.equal("response digest", found.hex(), r["digest"])
    t = vectors["tensors"]
    tensors = [(x["name"], x["datatype"], x["shape"], unhex(x["data"])) for x in t["tensors"]]
    checks.equal("tensors digest", digests.tensors_digest(tensors).hex(), t["digest"])
    for c in vectors["commit"]:
        found = digests.commit(c["role"], unhex(c["salt"]), unhex(c["digest"]))
        checks.equal(f"commitment {c['role']}", found.hex(), c["commitment"])
    m = vectors["model"]
    found = digests.model_digest([(f["name"], unhex(f["sha256"]), f["size"]) for f in m["files"]])
    checks.equal("model digest", found.hex(), m["digest"])

    for row in vectors["report_data"]:
        nonce = unhex(row["nonce"]) if row["nonce"] else None
        bind = digests.sha256(unhex(row["bind_input"]))
        found = keyset.report_data(row["purpose"], unhex(ks["digest"]), nonce, bind)
        checks.equal(f"report data {row['purpose']}", found.hex(), row["report_data"])
    checks.equal("bind boot", keyset.bind_boot(), digests.sha256(bytes(32)))

    rc = vectors["receipt"]
    claims = {}
    for label, value in rc["claims"].items():
        label = int(label)
        if isinstance(value, str) and label not in (receipt.ISS, receipt.PROFILE_LABEL):
            value = unhex(value)
        elif label == receipt.CATALOG:
            value = [value[0], unhex(value[1])]
        claims[label] = value
    checks.equal("receipt payload", cbor.dumps(claims).hex(), rc["payload"])
    checks.equal("receipt cose", receipt.sign(receipt_key, claims).hex(), rc["cose"])
    checks.equal("receipt read", receipt.parse(unhex(rc["cose"]))[0], claims)
    checks.equal("receipt verifies", receipt.verifies(unhex(rc["cose"]), keyset.receipt_key(ks["object"])), True)

    lg = vectors["log"]
    checks.equal("log origin", log.origin("enclave.example/log", log_public), lg["origin"])
    checks.equal("log vkey", log.vkey(lg["origin"], log_public), lg["vkey"])
    catalog = digests.object_digest(lg["catalog"])
    checks.equal("catalog digest", catalog, claims[receipt.CATALOG][1])
    entries = [unhex(e) for e in lg["entries"]]
    checks.equal("entry boot", log.entry("boot", unhex(ks["digest"])), entries[0])
    checks.equal("entry catalog", log.entry("catalog", catalog), entries[1])
    checks.equal("entry receipt", log.entry("receipt", digests.sha256(unhex(rc["cose"]))), entries[2])
    leaves = [log.leaf(e) for e in entries]
    checks.equal("leaves", [x.hex() for x in leaves], lg["leaves"])
    tree_root = log.root(leaves)
    checks.equal("root", tree_root.hex(), lg["root"])
    text = log.checkpoint(lg["origin"], len(leaves), tree_root)
    checks.equal("note", log.sign_note(log_key, lg["origin"], text), lg["note"])
    checks.equal("note verifies", log.note_verifies(lg["note"], lg["origin"], log_public), True)
    for index, expected in enumerate(lg["inclusion"]):
        proof = log.inclusion(index, leaves)
        checks.equal(f"inclusion {index}", [x.hex() for x in proof], expected)
        found = log.included(index, len(leaves), leaves[index], proof, tree_root)
        checks.equal(f"inclusion {index} verifies", found, True)
        wrong = log.included((index + 1) % len(leaves), len(leaves), leaves[index], proof, tree_root)
        checks.equal(f"inclusion {index} at another index", wrong, False)
    proof = log.tlog_proof(2, log.inclusion(2, leaves), lg["note"])
    checks.equal("tlog-proof", proof, lg["proof_2"])
    checks.equal("tlog-proof read", log.parse_tlog_proof(proof), (2, log.inclusion(2, leaves), lg["note"]))
    checks.equal("receipt key text", ks["object"]["receipt_key"], "ed25519:" + b64(keyset.receipt_key(ks["object"])))
    return checks


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    checks = check(json.loads(path.read_text()))
    check_ohttp(checks)
    for line in checks.failed:
        print("FAIL", line)
    print(f"second implementation: {checks.count - len(checks.failed)} of {checks.count} known answers agree")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
