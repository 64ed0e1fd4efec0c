"""scripts/repro-check: two builds of the guest image under circumstances that differ, compared byte by byte, and a control."""
from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import initrd
import pins as pinned
from build import ours
from errors import BLIND, DIFFERENT, Arguments, Say, Stop, cannot
from ingredients import Ingredients, put, sha256
from mirror import Mirror
from pins import ROOT
from toolroot import Rust

HELP = """\
Builds the guest image twice and compares every file of it. The two builds share ingredients and crates, nothing else: they differ in
the folder of the source, umask, home, cargo home, cargo's configuration, number of jobs, time zone, locale, name of the work folder,
and in where crates come from (cargo's registry, an archive written by scripts/build-image --archive).

Then a control: a third build that must come out different, or this check could see nothing. Without --control it is a cheap one,
another SOURCE_DATE_EPOCH; --control no-remap builds all programs again, without taking folders' names out of them.

example:
  scripts/repro-check
  scripts/repro-check --control no-remap --work /var/tmp/repro"""

CODES = """\
exit codes:
  0  equal, and the control differed
  1, 2, 3  a build ended so (scripts/build-image --help)
  4  the builds differ
  5  the control did not differ: the check is blind"""

# Like those of somebody who has his own opinions: nothing of it may show.
CONFIG = """\
[build]
rustflags = ["-Ctarget-cpu=native"]
rustc = "/nonexistent/rustc"
rustc-wrapper = "/nonexistent/wrapper"
rustc-workspace-wrapper = "/nonexistent/wrapper"
target-dir = "/nonexistent/target"
incremental = true
[target.x86_64-unknown-linux-gnu]
linker = "/nonexistent/linker"
rustflags = ["-Cforce-frame-pointers"]
[profile.release]
opt-level = 1
debug = true
lto = "off"
strip = "none"
[profile.release.package."*"]
opt-level = 1
[env]
CFLAGS = { value = "-O0", force = true }
"""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Arguments(prog="scripts/repro-check", description=HELP, epilog=CODES, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    add = parser.add_argument
    add("--work", type=Path, metavar="DIR", default=ROOT / "target" / "repro", help="folder to work in, emptied first (target/repro); needs 3 GB")
    add("--control", choices=("epoch", "no-remap"), default="epoch", help="which control (epoch)")
    add("--ingredients", type=Path, metavar="DIR", help="as of scripts/build-image")
    add("--offline", action="store_true", help="as of scripts/build-image")
    add("--mirror", metavar="URL", help="as of scripts/build-image")
    add("--security-mirror", metavar="URL", help="as of scripts/build-image")
    add("--image", type=Path, metavar="DIR", help="an image that scripts/image-test built out of this folder, in the place of the first build: half the time")
    add("--touchstone", type=Path, metavar="FILE", help="the program that measures; without it neither build measures")
    add("--keep", action="store_true", help="keep both builds and the control")
    add("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    if options.image and options.touchstone:
        parser.error("--image and --touchstone exclude each other: an image of scripts/image-test's measures nothing")
    return options


def built_with(source: Path) -> list[str]:
    """What scripts/build-image is told of the image that is compared, for a source in this folder: everything that it can make."""
    return ["--disk", "--models-volume", str(source / "enclave" / "tests" / "data" / "models")]


def source(target: Path, umask: int) -> Path:
    """A copy of the source as git would hand it out: every file that is tracked, or new and not ignored."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True)
    if listed.returncode == 0:
        names = sorted({n for n in listed.stdout.decode().split("\0") if n})
    else:
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file() and p.relative_to(ROOT).parts[0] not in ("target", ".git")]
    before = os.umask(umask)
    try:
        for name in names:
            if not (ROOT / name).is_file():
                continue
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
            if os.access(ROOT / name, os.X_OK):
                copy.chmod(0o777 & ~umask)
    finally:
        os.umask(before)
    return target


def compare(one: Path, other: Path) -> list[str]:
    """What differs between two folders of outputs, in words; empty if nothing does."""
    found = []
    names = sorted({p.name for p in one.iterdir()} | {p.name for p in other.iterdir()})
    for name in names:
        a, b = one / name, other / name
        if not a.is_file() or not b.is_file():
            found.append(f"{name}: only one build has it")
        elif sha256(a) != sha256(b):
            found.append(f"{name}: {first_difference(a, b)}")
    return found


def first_difference(a: Path, b: Path) -> str:
    x, y = a.read_bytes(), b.read_bytes()
    if a.name == "initrd.img":
        one, other = initrd.contents(x), initrd.contents(y)
        parts = [n for n in sorted(set(one) | set(other)) if one.get(n) != other.get(n)]
        if parts:
            return f"{', '.join(parts)} inside"
    at = next((i for i, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
    return f"{len(x)} and {len(y)} bytes, the first that differs at {at:#x}"


class Check:
    """The two builds and the control."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.say = options, Say("repro-check")
        self.work = options.work.resolve()
        self.seconds: dict[str, int] = {}

    def build(self, name: str, folder: Path, out: Path, environment: dict[str, str | None], umask: int, *words: str) -> Path:
        """One build in `folder`, as its own process."""
        self.say(f"building {name} in {folder}")
        env = {k: v for k, v in {**os.environ, **environment}.items() if v is not None}
        measured = ["--touchstone", str(self.options.touchstone.resolve())] if self.options.touchstone else ["--no-entry"]
        command = [sys.executable, str(folder / "scripts" / "lib" / "image" / "build.py"), *built_with(folder), "--out", str(out), *measured,
                   "--issued", "2026-01-01T00:00:00Z",
                   "--not-after", "2027-01-01T00:00:00Z", "--minimum-tcb", "Genoa:bootloader=1,tee=1,snp=1,microcode=1", *words]
        began, before = time.monotonic(), os.umask(umask)
        try:
            with (self.work / f"{name}.log").open("w") as log:
                code = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder).returncode
        finally:
            os.umask(before)
        self.seconds[name] = round(time.monotonic() - began)
        if code:
            tail = "\n".join((self.work / f"{name}.log").read_text().splitlines()[-25:])
            raise Stop(code if code in (1, 2, 3) else 1, f"the build {name} ended with {code}:\n{tail}")
        return out

    def run(self) -> dict:
        o, work = self.options, self.work
        ours(work, "repro-check", "--work")
        shutil.rmtree(work, ignore_errors=True)
        put(work / "repro-check", b"")
        # Both at once: who edits meanwhile would see a difference that is none.
        one = source(work / "one", 0o022)
        other = source(work / "the other" / "with-a-much-longer-name" / "source", 0o077)
        pins = pinned.load()
        ingredients = Ingredients(pins, ROOT / "target" / "ingredients", self.say, Mirror(self.say, o.mirror, o.security_mirror), o.ingredients, o.offline)
        rust = Rust(pins)
        rust.check()
        archive = work / "archive"
        ingredients.archive(archive, rust.cargo)
        # The first has the packages and the library alone, and crates from where this machine's cargo has them.
        packages = work / "packages"
        packages.mkdir()
        for path in archive.iterdir():
            if path.is_file():
                os.link(path, packages / path.name)

        given = o.ingredients if o.ingredients is not None and (o.ingredients / "crates").is_dir() else packages
        offline = ["--offline"] if o.offline else []
        first = ({"TZ": "UTC", "LC_ALL": "C"}, 0o022)
        if o.image is not None:
            a, one = o.image.resolve(), ROOT
        else:
            a = self.build("one", one, work / "out-one", *first, "--ingredients", str(given), "--jobs", str(os.cpu_count() or 1), *offline)

        home = work / "a-home"
        put(home / "cargo" / "config.toml", CONFIG.encode())
        second = ({"TZ": "Pacific/Chatham", "LC_ALL": None, "LANG": "tr_TR.UTF-8", "HOME": str(home), "CARGO_HOME": str(home / "cargo"),
                   "CARGO_TARGET_DIR": str(work / "elsewhere"), "RUSTFLAGS": "-Cdebuginfo=2", "CFLAGS": "-O0 -g", "SOURCE_DATE_EPOCH": "1",
                   "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0", "RUSTUP_TOOLCHAIN": None,
                   "PATH": f"{rust.sysroot / 'bin'}:{os.environ.get('PATH', '')}"}, 0o077)
        b = self.build("other", other, work / "out-other", *second, "--ingredients", str(archive), "--offline", "--jobs", "2",
                       "--work", str(work / "the other" / "w"))
        different = compare(a, b)
        files = [{"name": p.name, "size": p.stat().st_size, "sha256": sha256(p)} for p in sorted(a.iterdir())]
        if different:
            return {"equal": False, "files": files, "different": different, "control": None, "seconds": self.seconds}

        self.say(f"{len(files)} files are equal; now the control ({o.control}), which must differ")
        c = self.build("control", one, work / "out-control", *first, "--ingredients", str(given), "--control", o.control, *offline)
        # What says that it is a control does not count as a difference.
        seen = [d for d in compare(a, c) if not d.startswith(("image.json", "measured-", "manifest"))]
        found = {"equal": True, "files": files, "different": [], "control": {"kind": o.control, "different": seen}, "seconds": self.seconds}
        if seen and not o.keep:
            shutil.rmtree(work)
        return found


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    try:
        if shutil.which("git") is None and (ROOT / ".git").exists():
            raise cannot("git is missing")
        found = Check(options).run()
    except Stop as stop:
        print(f"repro-check: {stop}", file=sys.stderr)
        if options.json:
            print(json.dumps({"error": str(stop), "exit": stop.code}, ensure_ascii=False))
        return stop.code
    code = DIFFERENT if found["different"] else BLIND if not found["control"]["different"] else 0
    if options.json:
        print(json.dumps({**found, "exit": code}, ensure_ascii=False))
    else:
        for file in found["files"]:
            print(f"{file['sha256']}  {file['size']:>10}  {file['name']}")
        for line in found["different"]:
            print(f"DIFFERS  {line}")
        if found["control"]:
            for line in found["control"]["different"]:
                print(f"control ({found['control']['kind']}) differs, as it must: {line}")
        times = ", ".join(f"{name} {seconds} s" for name, seconds in found["seconds"].items())
        print({0: f"{len(found['files'])} files, bit-equal in both builds ({times})",
               DIFFERENT: f"the two builds differ ({times}); they are kept in {options.work}",
               BLIND: f"the control is equal too: this check sees nothing ({times})"}[code])
    return code


if __name__ == "__main__":
    sys.exit(main())
