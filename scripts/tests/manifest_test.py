"""Programs that are not ours read the manifests we sign, and we read theirs: sigstore's model of a bundle, DSSE of the Secure
Systems Lab over OpenSSL, in-toto's statement.

    manifest_test.py TOUCHSTONE FOLDER      FOLDER: empty
"""

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey
from sigstore_models.bundle.v1 import Bundle

TOUCHSTONE, FOLDER = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
AT = "2026-11-22T00:00:00Z"
ROLES = ("firmware", "kernel", "initrd", "cmdline")
MEASUREMENT = {"snp": {"measurement": "a1" * 48, "vcpus": 2, "cpu": "EPYC-Genoa", "guest_features": "0x1"}}


def touchstone(*arguments, exit=0):
    done = subprocess.run([TOUCHSTONE, "manifest", *map(str, arguments)], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == exit, f"exit {done.returncode}, expected {exit}: {arguments}\n{done.stdout}{done.stderr}"
    return done.stdout


def hint_of(public) -> str:
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


def key_of(pem: bytes) -> SSlibKey:
    public = serialization.load_pem_public_key(pem)
    return SSlibKey.from_crypto(public, keyid=hint_of(public))


def ours() -> list[str]:
    """The lines of a manifest that alice and bob signed with the command."""
    for name in ("alice", "bob"):
        (FOLDER / f"{name}.pub.pem").write_text(touchstone("key", "-o", f"{name}.pem"))
    ingredients = [{"role": role, "name": role, "sha256": f"{n:02x}" * 32, "size": 7} for n, role in enumerate(ROLES)]
    measured = {"v": "touchstone/measured/1", "tee": "sev-snp", "vmm": "qemu", "os_binding": "launch-digest", "confirmed": None,
                "ingredients": ingredients, "measurements": [MEASUREMENT]}  # fmt: skip
    (FOLDER / "measured.json").write_text(json.dumps(measured))
    touchstone("new", "--name", "touchstone-enclave", "--version", 18, "--issued", "2026-11-21T00:00:00Z",
               "--not-after", "2027-06-01T00:00:00Z", "-o", "draft.json")  # fmt: skip
    said = [word for role in ROLES for word in ("--origin", f"{role}=rebuilt", "--source", f"{role}=a tree of sources")]
    touchstone("add", "draft.json", "--release", "1.4.2", "--platform", "qemu-genoa", "--measured", "measured.json",
               "--quote-source", "exclusive", "--minimum-tcb", "Genoa:bootloader=9,tee=0,snp=23,microcode=72", *said)  # fmt: skip
    for name in ("alice", "bob"):
        touchstone("sign", "draft.json", "--key", f"{name}.pem", "-o", "ours.jsonl", "--at", AT)
    return (FOLDER / "ours.jsonl").read_text().splitlines()


def they_read_ours(lines: list[str]) -> dict:
    keys = [key_of((FOLDER / f"{name}.pub.pem").read_bytes()) for name in ("alice", "bob")]
    for line, key in zip(lines, keys, strict=True):
        bundle = Bundle.from_json(line)
        assert bundle.media_type == MEDIA_TYPE and bundle.verification_material.tlog_entries == []
        assert bundle.verification_material.public_key.hint == key.keyid, "another hint than RFC 6962's"
        assert len(bundle.dsse_envelope.signatures) == 1
        # What the model writes again is the same object.
        assert json.loads(bundle.to_json()) == json.loads(line)
        envelope = Envelope.from_dict(json.loads(line)["dsseEnvelope"])
        assert envelope.payload_type == "application/vnd.in-toto+json"
        assert list(envelope.verify([key], 1)) == [key.keyid]
        changed = Envelope.from_dict(json.loads(line)["dsseEnvelope"])
        changed.payload = changed.payload.replace(b'"version":18', b'"version":19')
        assert changed.payload != envelope.payload
        refuses(lambda: changed.verify([key], 1))
    statement = json.loads(envelope.payload)
    # Refuses members that a statement has not.
    Statement.copy_from_pb(json_format.ParseDict(statement, statement_pb2.Statement())).validate()
    return statement


def refuses(verify) -> None:
    try:
        verify()
    except VerificationError:
        return
    raise AssertionError("a changed payload was accepted")


def theirs(statement: dict, spoil=lambda envelope: None, **writing) -> None:
    """A manifest in `theirs.jsonl` that only their code wrote and signed."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (FOLDER / "carol.pub.pem").write_bytes(pem)
    form = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": False} | writing
    envelope = Envelope(json.dumps(statement, **form).encode(), "application/vnd.in-toto+json", {})
    envelope.sign(CryptoSigner(private, key_of(pem)))
    wire = envelope.to_dict()
    spoil(wire)
    bundle = {"mediaType": MEDIA_TYPE, "dsseEnvelope": wire,
              "verificationMaterial": {"publicKey": {"hint": hint_of(public)}, "tlogEntries": []}}  # fmt: skip
    Bundle.from_json(json.dumps(bundle))
    (FOLDER / "theirs.jsonl").write_text(json.dumps(bundle) + "\n")


def verify(exit: int) -> None:
    touchstone("verify", "theirs.jsonl", "--signer", "carol=carol.pub.pem", "--threshold", 1, "--at", AT, exit=exit)


def we_read_theirs(statement: dict) -> None:
    statement = json.loads(json.dumps(statement))
    statement["predicate"]["version"] = 19
    theirs(statement)
    verify(0)

    def url_safe(envelope):
        envelope["payload"] = envelope["payload"].replace("+", "-").replace("/", "_")

    theirs(statement, url_safe)
    verify(0)

    def changed(envelope):
        payload = base64.b64decode(envelope["payload"]).replace(b'"version":19', b'"version":20')
        envelope["payload"] = base64.b64encode(payload).decode()

    theirs(statement, changed)
    verify(3)
    theirs(statement, indent=1)
    verify(2)
    statement["subject"].pop()
    theirs(statement)
    verify(2)


def main() -> None:
    lines = ours()
    statement = they_read_ours(lines)
    we_read_theirs(statement)
    print("second implementation: manifests: 2 lines of ours read by sigstore-models, securesystemslib and in-toto-attestation; of 5 of "
          "theirs 2 accepted and 3 lies refused")  # fmt: skip


if __name__ == "__main__":
    main()
