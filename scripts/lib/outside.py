"""Tests by programs that are not ours, or share no code with ours: what scripts/test runs after cargo.

    outside.py triton       tritonclient against the real enclave, through the host and through `touchstone proxy`
    outside.py measure      launch digests beside sev-snp-measure's
    outside.py signing      OpenSSF Model Signing's own program signs models, `touchstone model verify` judges them
    outside.py manifest     manifests: sigstore's, in-toto's and the Secure Systems Lab's code reads ours, and we read theirs
    outside.py second       the second implementation: known answers, bundles and lies, sessions, sealed requests, kept answers
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import policies
from pyenv import python_with
from stack import ROOT, Failed, Proxy, Stack, binary, die, touchstone, verdict

sys.path.insert(0, str(ROOT / "attestation-verifier" / "testkit" / "python"))
from second_opinion import npy, policy  # noqa: E402

DATA = ROOT / "enclave" / "tests" / "data"
SECOND = ROOT / "attestation-verifier" / "testkit" / "python"
DEMO = ROOT / "target" / "demo"


def run(*command) -> None:
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failed(f"{Path(str(command[1])).name} failed")


def fresh(name: str) -> Path:
    folder = ROOT / "target" / "test" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def triton() -> None:
    tests, folder, measurement = ROOT / "scripts" / "tests", fresh("triton"), "7e" * 48
    python = python_with("tritonclient", tests / "tritonclient-requirements.txt")
    ask = (python, tests / "tritonclient_test.py")
    models = [policies.model_digest(path / "1") for path in sorted((DATA / "models").iterdir())]
    rules = folder / "policy.toml"
    answers = {"answers": policy.expect(policy.strings("tls-exporter"))}
    rules.write_text(policy.edit(policies.template(folder), policies.accepting(measurement, *models) | answers))
    with Stack(folder, DATA / "models", measurement=measurement) as stack:
        run(*ask, stack.url.removeprefix("http://"), DATA / "held-out", "through the host")
        with Proxy(folder, stack, rules) as proxy:
            run(*ask, proxy.address, DATA / "held-out", "through touchstone proxy")
    judge_kept(proxy.keep, rules, stack.root)


def signing() -> None:
    tests = ROOT / "scripts" / "tests"
    python = python_with("model-signing", tests / "model-signing-requirements.txt", hashed=True)
    run(python, tests / "model_signing_test.py", binary("touchstone"), DATA, fresh("model-signing"))


def judge_kept(keep: Path, rules: Path, root: Path) -> None:
    """What the proxy passed on holds later, too, without it."""
    kept = sorted(path.parent for path in keep.rglob("bundle.json"))
    for folder in kept:
        status = json.loads((folder / "response.json").read_text())["status"]
        expected = [] if status == 200 else ["--status", status]
        done = touchstone("check", folder, "--policy", rules, "--trust-simulated-root", root, "--expect-simulated", "--json", *expected)
        found = verdict(done)
        if found["exit"] or found["binding"] != "tls-exporter" or not {"logged", "signed"} <= set(found["achieved"]):
            raise Failed(f"{folder}: exit {found['exit']}, {found.get('deciding')}, binding {found['binding']}")
    if len(kept) < 40:
        raise Failed(f"the proxy kept {len(kept)} answers; more were asked for")
    print(f"tritonclient: all {len(kept)} answers that the proxy kept hold, bound by tls-exporter")


def measure() -> None:
    tests, real = ROOT / "scripts" / "tests", ROOT / "measurements" / "launch" / "testdata" / "virtee-sev"
    python = python_with("sev-snp-measure", tests / "sev-snp-measure-requirements.txt", hashed=True)
    test = tests / "sev_snp_measure_test.py"
    run(python, test, "--touchstone", binary("touchstone"), "--real", real, "--work", fresh("sev-snp-measure"))


def second() -> None:
    python = python_with("second-opinion", SECOND / "requirements.txt", hashed=True)
    run(python, SECOND / "vectors.py")
    run(python, SECOND / "run_mutants.py", "--touchstone", binary("touchstone"))
    session(python)
    kept = sorted(path for path in (DEMO / "answers").iterdir() if path.is_dir())
    run(python, SECOND / "opinion.py", "--root", DEMO / "genuine" / "platform" / "root.pem", *kept)


def manifest() -> None:
    tests = ROOT / "scripts" / "tests"
    python = python_with("manifest", tests / "manifest-requirements.txt", hashed=True)
    run(python, tests / "manifest_test.py", binary("touchstone"), fresh("manifest"))


def session(python: Path) -> None:
    folder, measurement, model = fresh("session"), "5e" * 48, "digits_cnn"
    descr, shape, raw = npy.read(DATA / "held-out" / f"{model}_x.npy")
    npy.write(folder / "row.npy", descr, [1, *shape[1:]], raw[: len(raw) // shape[0]])
    with Stack(folder, DATA / "models", measurement=measurement) as stack:
        common = (
            "--server", stack.url.removeprefix("http://"), "--root", stack.root,
            "--measurement", measurement, "--model", model, "--input", f"image={folder / 'row.npy'}",
        )  # fmt: skip
        run(python, SECOND / "session.py", *common)
        keep = folder / "sealed"
        run(python, SECOND / "sealed.py", *common, "--liar", binary("man-in-the-middle"), "--keep", keep)
    sealed_answers_hold(folder, keep, stack.root, policies.accepting(measurement, policies.model_digest(DATA / "models" / model / "1")))


def sealed_answers_hold(folder: Path, keep: Path, root: Path, reference: dict[str, str]) -> None:
    """`touchstone check` judges what the second implementation asked, sealed, and kept."""
    rules = folder / "policy.toml"
    answers = {"answers": policy.expect(policy.strings("ohttp-key"))}
    rules.write_text(policy.edit(policies.template(folder), reference | answers))
    kept = sorted(path for path in keep.iterdir())
    for answer in kept:
        done = touchstone("check", answer, "--policy", rules, "--trust-simulated-root", root, "--expect-simulated", "--json")
        found = verdict(done)
        if (found["exit"], found["binding"]) != (0, "ohttp-key") or not {"logged", "signed"} <= set(found["achieved"]):
            raise Failed(f"{answer}: exit {found['exit']}, {found.get('deciding')}, binding {found['binding']}")
    if len(kept) != 2:
        raise Failed(f"{len(kept)} answers were kept, expected 2")
    # The twin: its record says another key.
    record = kept[0] / "session.json"
    record.write_text(re.sub(r'("ohttp_keys_sha256":)"[0-9a-f]{64}"', rf'\1"{"00" * 32}"', record.read_text()))
    found = verdict(touchstone("check", kept[0], "--policy", rules, "--trust-simulated-root", root, "--expect-simulated", "--json"))
    if (found["exit"], found["deciding"]) != (3, "session.ohttp_key"):
        raise Failed(f"another key: exit {found['exit']}, {found['deciding']}")
    print(f"second implementation: sealed requests: touchstone check accepts the {len(kept)} answers that were kept, bound by ohttp-key")


if __name__ == "__main__":
    try:
        {
            "triton": triton,
            "measure": measure,
            "signing": signing,
            "manifest": manifest,
            "second": second,
        }[sys.argv[1]]()
    except (Failed, OSError) as error:
        die(f"scripts/test: {error}")
