"""OpenSSF Model Signing's own program signs model folders, and `touchstone model verify` judges what it signed.

    model_signing_test.py TOUCHSTONE DATA WORK      the command; enclave/tests/data; an empty folder

Every lie stands beside its twin, which holds: the folder as it was signed.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, signing, verifying

COMMAND, DATA, WORK = (Path(argument).absolute() for argument in sys.argv[1:4])
PAYLOAD_TYPE = b"application/vnd.in-toto+json"


class Key:
    def __init__(self, name: str, curve: ec.EllipticCurve | None = None):
        self.private, self.public = WORK / f"{name}.pem", WORK / f"{name}.pub.pem"
        self.key = ec.generate_private_key(curve or ec.SECP256R1())
        self.private.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.public.write_bytes(
            self.key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )


class Model:
    """A model folder of our own tests, and what is signed of it."""

    made = 0

    def __init__(self, case: str):
        Model.made += 1
        self.folder, self.signature = WORK / f"m{Model.made}" / "model", WORK / f"m{Model.made}.sig"
        shutil.copytree(DATA / case, self.folder)

    def sign(self, key: Key, config: hashing.Config | None = None) -> "Model":
        how = signing.Config().use_elliptic_key_signer(private_key=key.private)
        how.set_hashing_config(config or hashing.Config()).sign(self.folder, self.signature)
        return self

    def payload(self) -> dict:
        return json.loads(base64.b64decode(json.loads(self.signature.read_text())["dsseEnvelope"]["payload"]))

    def root(self) -> str:
        return self.payload()["subject"][0]["digest"]["sha256"]

    def resign(self, key: Key, payload: dict) -> None:
        """Signs another statement by hand: what model-signing would not write."""
        bundle, raw = json.loads(self.signature.read_text()), json.dumps(payload).encode()
        pae = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE, len(raw), raw)
        sig = key.key.sign(pae, ec.ECDSA(hashes.SHA256()))
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(raw).decode()
        bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(sig).decode()
        self.signature.write_text(json.dumps(bundle))

    def theirs(self, key: Key, config: hashing.Config | None = None) -> bool:
        """Whether model-signing itself accepts it. It has to be told of BLAKE2 and shards, which it cannot read back."""
        how = verifying.Config().use_elliptic_key_verifier(public_key=key.public)
        if config:
            how.set_hashing_config(config)
        try:
            how.verify(self.folder, self.signature)
        except Exception:
            return False
        return True

    def judged(self, key: Key, signature: Path | None = None) -> tuple[int, str | None, str]:
        """Exit code, deciding check and its reason."""
        done = subprocess.run(
            [
                COMMAND, "model", "verify", self.folder, "--oms", signature or self.signature,
                "--public-key", key.public, "--json",
            ],
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        verdict = json.loads(done.stdout)
        assert verdict["exit"] == done.returncode, done
        deciding = [check for check in verdict["checks"] if check["id"] == verdict["deciding"]]
        return done.returncode, verdict["deciding"], deciding[0]["reason"] if deciding else ""


count = 0


def expect(what: str, found: tuple[int, str | None, str], exit: int, deciding: str | None, says: str = "") -> None:
    global count
    count += 1
    assert found[:2] == (exit, deciding) and says in found[2], f"{what}: found {found}, expected {exit} {deciding} {says!r}"


def holds(model: Model, key: Key, what: str) -> None:
    assert model.theirs(key), f"{what}: model-signing refuses its own"
    expect(what, model.judged(key), 0, None)


def files_changed(key: Key) -> None:
    """What was signed is held against the folder, name by name."""
    for case in ("tiny/external", "tiny/external_shared", "models/digits_cnn/1"):
        model = Model(case).sign(key)
        holds(model, key, case)
        entry = model.folder / "model.onnx"
        original = entry.read_bytes()
        # An unknown field at the end: sound protobuf, and another file.
        entry.write_bytes(original + b"\xf8\x7f\x01")
        assert not model.theirs(key)
        expect(f"{case} changed", model.judged(key), 3, "oms.files", '"model.onnx" is another file')
        entry.write_bytes(original)
        (model.folder / "settings.toml").write_text("sessions = 2\n")
        expect(f"{case} added", model.judged(key), 3, "oms.files", '"settings.toml" is in the folder and was not signed')
        (model.folder / "settings.toml").unlink()
        (model.folder / "notes.txt").write_text("x")
        expect(f"{case} extra", model.judged(key), 2, "model.format", "notes.txt: neither")
        (model.folder / "notes.txt").unlink()
        expect(f"{case} again", model.judged(key), 0, None)

    model = Model("tiny/external").sign(key)
    weights = model.folder / "w.bin"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    expect("weights changed", model.judged(key), 3, "oms.files", '"w.bin" is another file')
    model = Model("tiny/external").sign(key)
    (model.folder / "w.bin").unlink()
    expect("weights missing", model.judged(key), 2, "model.format", "w.bin: missing")
    model = Model("tiny/external")
    (model.folder / "settings.toml").write_text("sessions = 2\n")
    model.sign(key)
    holds(model, key, "settings signed")
    (model.folder / "settings.toml").unlink()
    expect("settings missing", model.judged(key), 3, "oms.files", '"settings.toml" was signed and is not in the folder')


def one_root_two_models(key: Key) -> None:
    """Root digests are over digests in order, without names: two folders can share one, and are two models."""
    # Two ONNX files, each of which keeps its weights in "the other": under one name or another they are both.
    graph = (DATA / "tiny/external/model.onnx").read_bytes()
    assert graph.count(b"w.bin") == 1
    padding = b"\x32\xac\x02" + b"p" * 300  # ModelProto.doc_string, so that there are bytes enough for the weights
    late, early = graph + padding, graph.replace(b"w.bin", b"a.bin") + padding
    first, second = Model("tiny/external"), Model("tiny/external")
    for model, files in (
        (first, {"a.bin": late, "model.onnx": early}),
        (second, {"model.onnx": late, "w.bin": early}),
    ):
        shutil.rmtree(model.folder)
        model.folder.mkdir()
        for name, data in files.items():
            (model.folder / name).write_bytes(data)
        holds(model.sign(key), key, "one of two")
    assert first.root() == second.root(), "no collision"
    expect("the other's signature", first.judged(key, second.signature), 3, "oms.files", "and 2 more differ")
    expect("the one's signature", second.judged(key, first.signature), 3, "oms.files", "and 2 more differ")

    # One folder, and a list whose names are swapped: signed truly, of the same root digest.
    model = Model("tiny/external").sign(key)
    root, payload = model.root(), model.payload()
    resources = payload["predicate"]["resources"]
    resources[0]["name"], resources[1]["name"] = resources[1]["name"], resources[0]["name"]
    model.resign(key, payload)
    assert model.root() == root and not model.theirs(key)
    expect("names swapped", model.judged(key), 3, "oms.files", '"model.onnx" is another file')
    # The order of a list is nobody's business, as long as the root digest is of that order.
    resources[0]["name"], resources[1]["name"] = resources[1]["name"], resources[0]["name"]
    resources.reverse()
    model.resign(key, payload)
    expect("root digest of another order", model.judged(key), 2, "oms.format", "not that of the files listed")
    joined = b"".join(bytes.fromhex(resource["digest"]) for resource in resources)
    payload["subject"][0]["digest"]["sha256"] = hashlib.sha256(joined).hexdigest()
    model.resign(key, payload)
    holds(model, key, "another order")

    # A file renamed on disk and, so that the model still loads, in the graph.
    model = Model("tiny/external").sign(key)
    (model.folder / "w.bin").rename(model.folder / "x.bin")
    (model.folder / "model.onnx").write_bytes(graph.replace(b"w.bin", b"x.bin"))
    expect("renamed", model.judged(key), 3, "oms.files", "more differ")


def other_keys(key: Key) -> None:
    model = Model("tiny/external").sign(key)
    holds(model, key, "its key")
    expect("another key", model.judged(Key("other")), 3, "oms.signature", "did not sign")
    strong = Key("p384", ec.SECP384R1())
    model.sign(strong)
    assert model.theirs(strong)
    expect("P-384", model.judged(strong), 1, "usage", "expected the 91 bytes of an uncompressed P-256 key")

    model.sign(key)
    bundle = json.loads(model.signature.read_text())
    for kind in ("certificate", "x509CertificateChain"):
        bundle["verificationMaterial"] = {kind: {"rawBytes": ""}, "tlogEntries": []}
        model.signature.write_text(json.dumps(bundle))
        expect(kind, model.judged(key), 3, "oms.signature", "NOT SUPPORTED")
    model.signature.write_text("{}")
    expect("no bundle", model.judged(key), 2, "oms.format")


def other_methods(key: Key) -> None:
    config = lambda: hashing.Config()  # noqa: E731
    model = Model("tiny/external")
    holds(model.sign(key, config().use_file_serialization(hashing_algorithm="sha256")), key, "SHA-256")
    for name, how in {
        "blake2": config().use_file_serialization(hashing_algorithm="blake2"),
        "blake3": config().use_file_serialization(hashing_algorithm="blake3"),
        "shards": config().use_shard_serialization(shard_size=128),
    }.items():
        model.sign(key, how)
        assert model.theirs(key, how), name
        expect(name, model.judged(key), 4, "oms.method", name)


def left_out(key: Key) -> None:
    """model-signing itself accepts whatever lies where its signer looked away."""
    model = Model("tiny/external")
    (model.folder / "settings.toml").write_text("sessions = 2\n")
    holds(model.sign(key, hashing.Config().set_ignored_paths(paths=["settings.toml"])), key, "settings left out")
    shared = Model("tiny/external_shared")
    for model, path in ((Model("tiny/external"), "w.bin"), (shared, "data"), (shared, "data/w.bin")):
        model.sign(key, hashing.Config().set_ignored_paths(paths=[path]))
        assert model.theirs(key), path
        expect(f"{path} left out", model.judged(key), 4, "oms.covers", "w.bin")


if __name__ == "__main__":
    key = Key("signer")
    for test in (files_changed, one_root_two_models, other_keys, other_methods, left_out):
        test(key)
    print(f"model-signing: {count} of {count} signatures and lies judged as expected")
