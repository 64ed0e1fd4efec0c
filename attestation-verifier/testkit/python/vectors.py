#!/usr/bin/env python3
"""Checks the second implementation against the known answers of the specification.

    vectors.py [FILE]      FILE: v1.json (default: the copy that the formats crate tests with)
"""

import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from second_opinion import cbor, digests, jcs, keyset, log, receipt
from second_opinion.encoding import b64

DEFAULT = Path(__file__).resolve().parents[2] / "formats" / "testdata" / "v1.json"


class Checks:
    def __init__(self):
        self.count, self.failed = 0, []

    def equal(self, name, found, expected):
        self.count += 1
        if found != expected:
            self.failed.append(f"{name}: found {found!r}, expected {expected!r}")


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
    for line in checks.failed:
        print("FAIL", line)
    print(f"second implementation: {checks.count - len(checks.failed)} of {checks.count} known answers agree")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
