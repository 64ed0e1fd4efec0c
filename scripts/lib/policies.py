"""Policies of our own out of the strict template. Standard library alone."""

import sys
from pathlib import Path

from stack import ROOT, Failed, touchstone

sys.path.insert(0, str(ROOT / "attestation-verifier" / "testkit" / "python"))
from second_opinion import digests, policy  # noqa: E402

# For questions that whoever relays them may read.
IN_PLAIN_SIGHT = {"binding": '{ waive = "nothing secret is asked" }'}


def template(folder: Path, tee: str = "sev-snp") -> str:
    path = folder / "template.toml"
    path.unlink(missing_ok=True)
    done = touchstone("policy", "init", "--tee", tee, "-o", path)
    if done.returncode:
        raise Failed(f"touchstone policy init: {done.stderr}")
    return path.read_text()


def accepting(measurement: str, *models: str) -> dict[str, str]:
    """The two values that nobody but the caller can know, on SEV-SNP."""
    return expecting({"snp.measurement": measurement}, *models)


def expecting(measurements: dict[str, str], *models: str) -> dict[str, str]:
    """The same on any platform: a measurement for each check that compares one."""
    measured = {check: policy.expect(policy.strings(value)) for check, value in measurements.items()}
    return measured | {"models": policy.expect(policy.strings(*models))}


def model_digest(folder: Path) -> str:
    """Hashed from our own copy of the files: a reference value never comes from the server it is about."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "settings.toml"]
    described = [(str(p.relative_to(folder)), digests.sha256(p.read_bytes()), p.stat().st_size) for p in files]
    return digests.model_digest(described).hex()
