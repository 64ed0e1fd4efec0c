"""Virtual environments under target/, one per pinned requirements file. Standard library alone."""

import hashlib
import subprocess
import sys
from pathlib import Path

from stack import ROOT, Failed


def python_with(name: str, requirements: Path, hashed: bool = False) -> Path:
    """The Python of an environment that holds exactly what `requirements` pins; made if it is not there."""
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / "target" / "venv" / f"{name}-{digest}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if complete.exists():
        return python
    quiet = ["--disable-pip-version-check", "--quiet"]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        checks = ["--require-hashes", "--only-binary=:all:"] if hashed else []
        subprocess.run([python, "-m", "pip", *quiet, "install", *checks, "-r", requirements], check=True)
    except (subprocess.CalledProcessError, OSError) as error:
        raise Failed(f"a Python environment for {name} could not be made: {error}") from error
    complete.touch()
    return python
