"""Tests by programs that are not ours, or share no code with ours: what scripts/test runs after cargo.

    outside.py triton       tritonclient against the real enclave, through the host
    outside.py second       the second implementation: known answers, bundles and lies, kept answers
"""

import subprocess
import sys
from pathlib import Path

from pyenv import python_with
from stack import ROOT, Failed, Stack, binary, die

DATA = ROOT / "enclave" / "tests" / "data"
SECOND = ROOT / "attestation-verifier" / "testkit" / "python"
DEMO = ROOT / "target" / "demo"


def run(*command) -> None:
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failed(f"{Path(str(command[1])).name} failed")


def triton() -> None:
    tests = ROOT / "scripts" / "tests"
    python = python_with("tritonclient", tests / "tritonclient-requirements.txt")
    with Stack(ROOT / "target" / "test" / "triton", DATA / "models", measurement="7e" * 48) as stack:
        run(python, tests / "tritonclient_test.py", stack.url.removeprefix("http://"), DATA / "held-out")


def second() -> None:
    python = python_with("second-opinion", SECOND / "requirements.txt", hashed=True)
    run(python, SECOND / "vectors.py")
    run(python, SECOND / "run_mutants.py", "--touchstone", binary("touchstone"))
    kept = sorted(path for path in (DEMO / "answers").iterdir() if path.is_dir())
    run(python, SECOND / "opinion.py", "--root", DEMO / "genuine" / "platform" / "root.pem", *kept)


if __name__ == "__main__":
    try:
        {"triton": triton, "second": second}[sys.argv[1]]()
    except (Failed, OSError) as error:
        die(f"scripts/test: {error}")
