"""An exchange and the bundle that proves it (formats.md section 7), made step by step.

`Enclave` holds what a boot makes once. `Draft` is one answer on its way to a bundle: each step reads
what the step before it left, so that a change made early is followed by honest work after it ("a
re-signed lie"), and a change made late is a plain forgery.
"""

import copy
import json
import secrets
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from . import cbor, digests, jcs, keyset, log, receipt
from .amd import Platform
from .encoding import b64

PREFIX = "enclave.example/log"


@dataclass
class Model:
    name: str
    version: str
    model_digest: bytes
    config_digest: bytes

    def row(self) -> dict:
        digests_ = {"model_digest": self.model_digest.hex(), "config_digest": self.config_digest.hex()}
        return {"name": self.name, "version": self.version} | digests_


def model(name: str) -> Model:
    config = {"v": "touchstone/config/1", "runtime": "onnxruntime", "version": "1.31.1", "threads": 1, "model": name}
    weights = digests.sha256(name.encode())
    files = [("model.onnx", weights, 4096), ("weights/w0.bin", digests.sha256(weights), 65536)]
    return Model(name, "1", digests.model_digest(files), digests.object_digest(config))


class Enclave:
    def __init__(self, platform: Platform, now: int, span=7 * 86400, name="enclave.example"):
        self.platform, self.now = platform, now
        self.receipt_key, self.log_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        public = self.log_key.public_key().public_bytes_raw()
        self.origin = log.origin(PREFIX, public)
        self.keyset = keyset.keyset(
            name=name,
            receipt_key=self.receipt_key.public_key().public_bytes_raw(),
            log=log.vkey(self.origin, public),
            not_before=now - 600,
            not_after=now - 600 + span,
            software=digests.sha256(b"build statement"),
            config=digests.sha256(b"settings"),
        )
        self.keyset_digest = digests.object_digest(self.keyset)
        self.models = [model("digits"), model("wine")]
        self.catalog = self.make_catalog()

    def change_keyset(self, change) -> None:
        """Changes the keyset before anything is made from it; all that follows is honest work."""
        change(self, self.keyset)
        self.keyset_digest = digests.object_digest(self.keyset)
        self.catalog = self.make_catalog()

    def make_catalog(self, epoch=0, previous=bytes(32)) -> dict:
        return {
            "v": "touchstone/catalog/1",
            "keyset_digest": self.keyset_digest.hex(),
            "epoch": epoch,
            "previous": previous.hex(),
            "models": [m.row() for m in self.models],
        }


@dataclass
class Exchange:
    """The bytes that a caller sent and got."""

    method: str
    target: str
    request_header: int | None
    request: bytes
    status: int
    response_header: int | None
    response: bytes
    inputs: list
    outputs: list


def exchange(model_name: str, receipt_id: bytes, binary: bool = False) -> Exchange:
    """One inference in the Open Inference Protocol, as JSON or in its binary extension."""
    x, y = [0.5, -2.0], [0.25, 0.75]
    raw_x, raw_y = struct.pack("<2f", *x), struct.pack("<2f", *y)
    asked = {"name": "X", "datatype": "FP32", "shape": [1, 2]}
    given = {"name": "probabilities", "datatype": "FP32", "shape": [1, 2]}
    answer = {"model_name": model_name, "model_version": "1", "parameters": {"touchstone_id": receipt_id.hex()}}
    if binary:
        asked["parameters"] = given["parameters"] = {"binary_data_size": 8}
    else:
        asked["data"], given["data"] = x, y
    question = {"inputs": [asked]}
    if binary:
        question["parameters"] = {"binary_data_output": True}
    head = json.dumps(question).encode()
    reply = json.dumps(answer | {"outputs": [given]}).encode()
    return Exchange(
        method="POST",
        target=f"/v2/models/{model_name}/infer",
        request_header=len(head) if binary else None,
        request=head + (raw_x if binary else b""),
        status=200,
        response_header=len(reply) if binary else None,
        response=reply + (raw_y if binary else b""),
        inputs=[("X", "FP32", [1, 2], raw_x)],
        outputs=[("probabilities", "FP32", [1, 2], raw_y)],
    )


@dataclass
class Draft:
    """`hooks` maps a step to a function that changes what the step made, in place or by return."""

    enclave: Enclave
    level: str = "logged"
    binary: bool = False
    nonce: bytes | None = field(default_factory=lambda: secrets.token_bytes(32))
    sequence: int = 1
    hooks: dict = field(default_factory=dict)
    world: object = None

    def hook(self, step: str, value):
        if step in self.hooks:
            changed = self.hooks[step](self, value)
            return value if changed is None else changed
        return value

    def build(self) -> bytes:
        e = self.enclave
        self.cti = secrets.token_bytes(16)
        self.exchange = self.hook("exchange", exchange("digits", self.cti, self.binary))
        self.salts = {role: secrets.token_bytes(16) for role in digests.ROLES}
        x = self.exchange
        self.digests = {
            "request": digests.request_digest(x.method, x.target, x.request_header, x.request),
            "response": digests.response_digest(x.status, x.response_header, x.response),
            "inputs": digests.tensors_digest(x.inputs),
            "outputs": digests.tensors_digest(x.outputs),
        }
        self.catalog = self.hook("catalog", copy.deepcopy(e.catalog))
        self.claims = self.hook("claims", self.make_claims())
        self.cose = self.hook("cose", receipt.sign_payload(e.receipt_key, self.payload()))
        self.leaves = self.hook("leaves", self.make_leaves())
        self.index = self.hook("index", self.sequence + 2)
        self.note_text = self.hook("note_text", log.checkpoint(e.origin, len(self.leaves), log.root(self.leaves)))
        self.note = self.hook("note", log.sign_note(e.log_key, e.origin, self.note_text))
        hashes = self.hook("hashes", log.inclusion(self.index, self.leaves))
        self.proof = self.hook("proof", log.tlog_proof(self.index, hashes, self.note))
        self.bundle = self.hook("bundle", self.make_bundle())
        return self.hook("file", jcs.to_file(self.bundle))

    def guarantees(self) -> list[str]:
        return receipt.close({"boot": {"signed"}, "quoted": {"quoted", "logged"}}.get(self.level, {"logged"}))

    def make_claims(self) -> dict:
        e, served = self.enclave, self.enclave.models[0]
        commitments = {
            receipt.COMMITMENTS[role]: digests.commit(role, self.salts[role], self.digests[role])
            for role in digests.ROLES
        }
        claims = {
            receipt.ISS: e.keyset["name"],
            receipt.IAT: e.now,
            receipt.CTI: self.cti,
            receipt.PROFILE_LABEL: receipt.PROFILE,
            receipt.MODEL: served.model_digest,
            receipt.CONFIG: served.config_digest,
            receipt.SEQUENCE: self.sequence,
            receipt.KEYSET: e.keyset_digest,
            receipt.GUARANTEES: self.guarantees(),
            receipt.CATALOG: [self.catalog["epoch"], digests.object_digest(self.catalog)],
            receipt.STATUS: 0,
        }
        if self.nonce is not None:
            claims[receipt.NONCE] = self.nonce
        return claims | commitments

    def payload(self) -> bytes:
        return self.hook("payload", cbor.dumps(self.claims))

    def make_leaves(self) -> list[bytes]:
        e = self.enclave
        catalog = digests.object_digest(self.catalog)
        objects = [("boot", e.keyset_digest), ("catalog", catalog)]
        objects += [("receipt", digests.sha256(b"another receipt %d" % n)) for n in range(self.sequence)]
        objects += [("receipt", digests.sha256(self.cose)), ("receipt", digests.sha256(b"a later one"))]
        return [log.leaf(log.entry(kind, digest)) for kind, digest in objects]

    def report_data(self, purpose: str) -> bytes:
        binds = {
            "boot": lambda: (None, keyset.bind_boot()),
            "checkpoint": lambda: (None, keyset.bind_checkpoint(self.note_text)),
            "receipt": lambda: (self.nonce, keyset.bind_receipt(self.cose)),
            "session": lambda: (self.nonce, keyset.bind_session(bytes(32), bytes(32))),
        }
        nonce, bind = binds[purpose]()
        return keyset.report_data(purpose, self.enclave.keyset_digest, nonce, bind)

    def evidence(self, purpose: str, **changes) -> dict:
        """`changes` go into the report; honest otherwise."""
        platform = self.enclave.platform
        nonce = self.nonce if purpose in ("receipt", "session") else None
        report = platform.report(self.report_data(purpose), **changes)
        return {
            "purpose": purpose,
            "nonce": nonce.hex() if nonce is not None else None,
            "tee": "sev-snp",
            "quote": b64(report),
            "collateral": {
                "vek": b64(platform.vek),
                "chain": [b64(platform.intermediate)],
                "crls": [b64(platform.pki.crl)],
            },
        }

    def make_evidence(self) -> list[dict]:
        purposes = {"boot": ["boot"], "logged": ["checkpoint"], "quoted": ["checkpoint", "receipt"]}[self.level]
        return [self.evidence(purpose) for purpose in purposes]

    def make_bundle(self) -> dict:
        bundle = {
            "v": "touchstone/bundle/1",
            "receipt": b64(self.cose),
            "keyset": self.enclave.keyset,
            "evidence": self.hook("evidence", self.make_evidence()),
            "catalog": self.catalog,
            "openings": {
                role: {"salt": self.salts[role].hex(), "digest": self.digests[role].hex()} for role in digests.ROLES
            },
            "attachments": [],
            "view": {"note": "for people"},
        }
        if self.level != "boot":
            bundle["proof"] = self.proof
        return bundle
