"""Builds the test image's kernel module against the image's kernel, with the pinned compiler and Debian's headers, unpacked into a folder.

The kernel's own build programs are Debian 13's, run by Debian 13's loader and C library out of the same folder: this machine may be older.
The compiler is the image's, older than the kernel's: two options that it does not know are left out or translated. That does for
a module that no release holds.
"""
from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import deb
from errors import cannot
from ingredients import Ingredients
from pins import ROOT, Package
from toolroot import LIBRARIES, Toolroot

PINS = ROOT / "enclave" / "image" / "test" / "pins.json"
SOURCE = ROOT / "enclave" / "image" / "test" / "module"
MODULE = "touchstone_test_tsm.ko"
# What kbuild runs, and which program does the work behind it.
PROGRAMS = {"scripts/basic/fixdep": "fixdep", "scripts/mod/modpost": "modpost.real-lsb-64", "tools/objtool/objtool": "objtool.real-x86"}

COMPILER = """#!/bin/sh
# -fmin-function-alignment is GCC 14's name for what -falign-functions does well enough; -fstrict-flex-arrays is GCC 13's.
for word do
    shift
    case $word in
        -fmin-function-alignment=*) set -- "$@" "-falign-functions=${word#*=}" ;;
        -fstrict-flex-arrays=*) ;;
        *) set -- "$@" "$word" ;;
    esac
done
exec '%s' "$@"
"""

BY_LOADER = """#!/bin/sh
exec '{root}/{libraries}/ld-linux-x86-64.so.2' --library-path '{root}/{libraries}' '{program}' "$@"
"""


def pins(kernel: Package) -> list[Package]:
    """The pinned packages: headers of exactly the image's kernel, or an error that says what to do."""
    packages = [Package(**{**p, "use": tuple(p["use"])}) for p in json.loads(PINS.read_text())["packages"]]
    for package in packages:
        if package.name.startswith("linux-") and package.version != kernel.version:
            raise cannot(f"the image's kernel is {kernel.name} {kernel.version}, and {PINS.relative_to(ROOT)} pins {package.name} {package.version}: "
                         "pin the headers and kbuild of the same version, by the archive's index")
    return packages


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


class Kbuild:
    """Headers and build programs of the image's kernel, unpacked into `work`, which is emptied first."""

    def __init__(self, work: Path, kernel: Package, release: str, ingredients: Ingredients, tools: Toolroot):
        shutil.rmtree(work, ignore_errors=True)
        self.work, self.tools, root = work, tools, work / "root"
        for package in pins(kernel):
            deb.extract(ingredients.package(package), root)
        self.headers, common = root / "usr/src" / f"linux-headers-{release}", next((root / "usr/src").glob("linux-headers-*-common"), None)
        kbuild = next((root / "usr/lib").glob("linux-kbuild-*"), None)
        if common is None or kbuild is None or not self.headers.is_dir():
            raise cannot(f"the packages of {PINS.relative_to(ROOT)} hold no headers of {release}")
        # Debian's has the place where the package would be installed.
        (self.headers / "Makefile").write_text(f"include {common}/Makefile\n")
        for place, name in PROGRAMS.items():
            program = (kbuild / place).with_name(name)
            if program == kbuild / place:
                program = program.rename(program.with_name(f"{name}.program"))
            _script(kbuild / place, BY_LOADER.format(root=root, libraries=LIBRARIES, program=program))
        _script(work / "cc", COMPILER % (tools.bin / "cc"))

    def module(self, tdx: bool) -> bytes:
        """The module that provides SEV-SNP's quotes, or TDX's."""
        if shutil.which("make") is None:
            raise cannot("make is missing (Debian: the package build-essential)")
        source = self.work / "module"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(SOURCE, source)
        binutils = [f"{name.upper()}={self.tools.bin / name}" for name in ("ld", "ar")]
        words = ["make", "-C", self.headers, f"M={source}", f"CC={self.work / 'cc'}", *binutils, "CROSS_COMPILE=", "CONFIG_DEBUG_INFO_BTF_MODULES=",
                 f"TDX={int(tdx)}", "modules"]  # fmt: skip
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              env={"PATH": f"{self.tools.bin}:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": str(self.work)})  # fmt: skip
        if done.returncode:
            raise cannot(f"the test image's kernel module cannot be built:\n{(done.stderr or done.stdout)[-3000:]}")
        return (source / MODULE).read_bytes()
