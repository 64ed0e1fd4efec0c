"""scripts/build-image: pinned ingredients and this source in, a guest image and its manifest entry out."""
from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import deb
import disk
import entry
import initrd
import pins as pinned
import volume
from errors import Arguments, Say, Stop, cannot, ingredient, refused
from ingredients import Ingredients, put, sha256
from mirror import Mirror
from pins import ROOT, Pins
from programs import Builder
from toolroot import Rust, Toolroot, alone_in, check_machine

SETTINGS = ROOT / "enclave" / "image"
EXAMPLES = ROOT / "enclave" / "tests" / "data" / "models"
STUB = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"

HELP = """\
Builds the guest image out of pinned ingredients and this source, the same bytes on every machine. Linux on x86-64, glibc 2.36 or
later, Python 3.10 or later, the pinned Rust; no root, nothing is installed.

example:
  scripts/build-image --models-volume my-models --release 1.4.2 --not-after 2027-06-01T00:00:00Z \\
      --minimum-tcb Genoa:bootloader=9,tee=0,snp=23,microcode=72
  touchstone manifest sign target/image/manifest.draft.json --key alice.pem -o manifest.jsonl"""

CODES = """\
exit codes:
  0  built (or archived, or the pin written)
  1  wrong arguments; this machine lacks something, or has another Rust; a program does not compile
  2  an ingredient cannot be had or is not what is pinned: another version on the mirror, other bytes, missing offline
  3  the image is refused: something would be in it that does not belong there, or is missing

Guide: docs/image.md"""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Arguments(prog="scripts/build-image", description=HELP, epilog=CODES, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    add = parser.add_argument
    add("--out", type=Path, metavar="DIR", default=ROOT / "target" / "image", help="where the image goes (target/image)")
    add("--work", type=Path, metavar="DIR", default=ROOT / "target" / "image-work", help="where tools are unpacked and programs built (target/image-work)")
    add("--models", type=Path, metavar="DIR", help="model repository that goes into the initrd (the examples in enclave/tests/data/models)")
    add("--models-volume", type=Path, metavar="DIR", help="model repository that goes onto a volume of its own, for dm-verity")
    add("--net", metavar="HOW", help="reached by TCP instead of vsock: dhcp, or ADDRESS/PREFIX,GATEWAY")
    add("--disk", action="store_true", help="also a unified kernel image and a raw disk with it, reached by TCP (--net dhcp if nothing is said)")
    add("--settings", type=Path, metavar="DIR", help="files in it replace those of enclave/image: init.toml, enclave-vsock.toml, enclave-tcp.toml, cmdline")
    group = parser.add_argument_group("ingredients")
    add = group.add_argument
    add("--ingredients", type=Path, metavar="DIR", help="take ingredients from here, as --archive writes it or any part of it; the rest is fetched")
    add("--offline", action="store_true", help="fetch nothing: what is missing is named")
    add("--mirror", metavar="URL", help="mirror of Debian's archive, instead of the one that apt on this machine uses")
    add("--security-mirror", metavar="URL", help="mirror of its security archive, likewise")
    add("--archive", type=Path, metavar="DIR", help="write a complete folder for --ingredients, and build nothing")
    add("--update-pin", action="append", metavar="NAME", help="look what the mirror has now, print old and new, write the pin, build nothing; repeat, or `all`")
    add("--unsigned-index", action="store_true", help="with --update-pin: do without Debian's signature over the mirror's index")
    group = parser.add_argument_group("manifest entry")
    add = group.add_argument
    w = entry.Wishes()
    add("--no-entry", action="store_true", help="measure nothing and write no manifest")
    add("--touchstone", type=Path, metavar="FILE", help="the program that measures, instead of building it")
    add("--vcpus", default=w.vcpus, metavar="N,…", help=f"as `touchstone measure snp` takes it ({w.vcpus})")
    add("--cpu", default=w.cpu, metavar="MODEL,…", help=f"likewise ({w.cpu})")
    add("--guest-features", default=w.guest_features, metavar="HEX,…", help=f"likewise ({w.guest_features})")
    add("--page-add-order", default=w.page_add_order, metavar="ORDER,…", help=f"as `touchstone measure tdx` takes it ({w.page_add_order})")
    add("--rtmr0", action="append", default=[], metavar="HEX", help="likewise; repeat")
    add("--event-log", action="append", default=[], type=Path, metavar="FILE", help="likewise; repeat")
    add("--manifest-name", default=w.name, metavar="NAME", help=f"the manifest's name ({w.name})")
    add("--manifest-version", default=w.version, type=int, metavar="N", help="its version (1)")
    add("--release", default=w.release, metavar="R", help=f"the release that the image is ({w.release})")
    add("--issued", metavar="RFC3339", help="when the manifest is made, instead of now")
    add("--not-after", metavar="RFC3339", help="its last second; without it none is begun")
    add("--minimum-tcb", action="append", default=[], metavar="TCB", help="as `touchstone manifest add` takes it; a platform without one is left out; repeat")
    group = parser.add_argument_group("other")
    add = group.add_argument
    add("--jobs", type=int, metavar="N", help="jobs of cargo's at once")
    add("--json", action="store_true", help="print one JSON object: image.json, or what went wrong")
    add("--quiet", action="store_true", help="say nothing of progress")
    add("--control", choices=("no-remap", "epoch"), help="for scripts/repro-check: a build that must come out different; never for use")
    options = parser.parse_args(argv)
    if options.models and options.models_volume:
        parser.error("--models and --models-volume exclude each other")
    for name in ("models", "models_volume", "settings"):
        folder = getattr(options, name)
        if folder is not None and not folder.is_dir():
            parser.error(f"--{name.replace('_', '-')} {folder} is no folder")
    if options.net is not None and not is_network(options.net):
        parser.error(f"--net {options.net}: dhcp, or ADDRESS/PREFIX,GATEWAY with a prefix of 1 to 32 and two addresses of single machines")
    return options


def is_network(text: str) -> bool:
    """Whether PID 1 takes this (Ipv4Config::parse): a guest that does not would power off, on the operator's machine."""
    found = re.fullmatch(r"([0-9.]+)/([1-9]|[12][0-9]|3[0-2]),([0-9.]+)", text)
    try:
        addresses = {ipaddress.IPv4Address(found[1]), ipaddress.IPv4Address(found[3])} if found else set()
    except ValueError:
        return False
    return text == "dhcp" or len(addresses) == 2 and all(0 < a.packed[0] < 224 and a.packed[0] != 127 for a in addresses)


def update_pins(names: list[str], pins: Pins, mirror: Mirror, verify: bool) -> dict:
    """Prints what is pinned and what the mirror has, and writes what changed. The only way by which a pin ever changes."""
    wanted = list(pins.packages) if names == ["all"] else [pins.find(name) for name in names]
    changed, rows = {}, []
    for pin in wanted:
        now = mirror.current(pin, verify)
        if now is None:
            raise ingredient(f"the mirror has no {pin.follow or pin.name} in {pin.suite}: choose another package and write its pin by hand")
        same = (now.name, now.version, now.sha256) == (pin.name, pin.version, pin.sha256)
        rows.append({"name": pin.name, "old": pin.version, "new": now.version, "new_name": now.name, "sha256": now.sha256, "changed": not same})
        print(f"{pin.name}\n  old  {pin.version}  {pin.size} bytes  SHA-256 {pin.sha256}\n" +
              ("  unchanged" if same else f"  new  {now.version}  {now.size} bytes  SHA-256 {now.sha256}" +
               (f"\n       {now.name}" if now.name != pin.name else "")), file=sys.stderr)
        if not same:
            changed[pin.name] = now
    if changed:
        pinned.write(changed)
        print(f"{len(changed)} pins written to {pinned.PINS.relative_to(ROOT)}: read what is new in them, build, test, commit.", file=sys.stderr)
    return {"pins": rows}


def ours(folder: Path, mark: str, option: str) -> None:
    """Refuses a folder with something in it that no build wrote: a build removes what it finds there."""
    if folder.exists() and not (folder / mark).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise cannot(f"{option} {folder} is not empty, and not of an earlier build: nothing of it is removed. Name another folder")


@dataclass
class Image:
    """One build, from arguments to files."""

    options: argparse.Namespace
    pins: Pins
    ingredients: Ingredients
    say: Say

    def settings(self, name: str) -> str:
        own = self.options.settings / name if self.options.settings else None
        return (own if own is not None and own.is_file() else SETTINGS / name).read_text()

    def cmdline(self, *words: str) -> str:
        return " ".join([self.settings("cmdline").strip(), *words])

    def repository(self) -> Path:
        return self.options.models_volume or self.options.models or EXAMPLES

    def build(self) -> dict:
        o = self.options
        work, out = o.work.resolve(), o.out.resolve()
        # What can be seen to be wrong is said before anything is fetched or built.
        ours(work, "lock", "--work")
        ours(out, "image.json", "--out")
        if not entry.models_of(self.repository()):
            raise cannot(f"{self.repository()} holds no model: expected NAME/VERSION/model.onnx in it")
        if not re.fullmatch(r"[ -~]+", self.cmdline()):
            raise cannot("the command line must be one line of printable ASCII")
        rust = Rust(self.pins)
        rust.check()
        self.ingredients.all_packages(list(self.pins.packages) if o.disk else [p for p in self.pins.packages if "stub" not in p.use])
        library = self.ingredients.library()
        with alone_in(work):
            return self._build(work, out, rust, library)

    def _build(self, work: Path, out: Path, rust: Rust, library: Path) -> dict:
        o, say = self.options, self.say
        # What cargo kept is used again only with the very same pins.
        stamp = work / "pins"
        if not stamp.is_file() or stamp.read_text() != self.pins.sha256:
            shutil.rmtree(work / "cargo", ignore_errors=True)
            stamp.write_text(self.pins.sha256)
        say("unpacking the pinned tools")
        tools = Toolroot.unpack(work / "toolroot", self.pins, self.ingredients)
        builder = Builder(self.pins, rust, tools, self.ingredients, work, say, o.jobs, remap=o.control != "no-remap")
        builder.check_configuration()
        builder.fetch()
        staging = work / "image"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        kernel, release, packed = self._kernel()
        modules = initrd.modules(self.settings("init.toml"), packed)
        put(staging / "vmlinuz", kernel)
        for tee, body in self._firmware().items():
            put(staging / f"OVMF.{tee}.fd", body)
        programs = builder.programs()

        say("assembling")
        repository = self.repository()
        if repository == EXAMPLES:
            say("models: the examples of this repository (yours: --models DIR or --models-volume DIR)")
        models = entry.models_of(repository)
        words = []
        if o.models_volume:
            say("making the volume of models")
            words.append(volume.build(repository, staging / "models.img", work, tools).word)
        archive = self._initrd(programs, library.read_bytes(), modules, tools, None if o.models_volume else repository)
        initrd.check(archive)
        put(staging / "initrd.img", archive)
        net = [f"touchstone.net={o.net}"] if o.net else []
        put(staging / "cmdline", self.cmdline(*net, *words).encode())
        if o.disk:
            self._disk(staging, kernel, archive, self.cmdline(*(net or ["touchstone.net=dhcp"]), *words), release, tools)
        facts = self._facts(staging, programs, library, release, models)
        put(staging / "image.json", (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
        if out.exists():
            shutil.rmtree(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(staging, out)
        say(f"built into {out}")
        left = [] if o.no_entry else self._entry(out, builder, programs, library, models)
        for line in left:
            say(line)
        return {**facts, "folder": str(out), "left": left}

    def _kernel(self) -> tuple[bytes, str, dict[str, bytes]]:
        """The kernel, its release, and its modules by place."""
        (pin,) = self.pins.of_use("kernel")
        kernel, modules, release = None, {}, ""
        for _, place, body in deb.entries(self.ingredients.package(pin)):
            if body is not None and (found := re.fullmatch(r"boot/vmlinuz-(.+)", place)):
                kernel, release = body, found[1]
            elif body is not None and place.startswith("usr/lib/modules/") and ".ko" in place:
                modules[place] = body
        if kernel is None:
            raise ingredient(f"{pin.file} holds no kernel")
        return kernel, release, modules

    def _firmware(self) -> dict[str, bytes]:
        """SEV-SNP's as it is. TDX's is Debian's with empty variables in the place of those that enforce Secure Boot with Microsoft's keys:
        it would refuse every kernel that is not behind a shim. Which kernel runs is what the registers say."""
        variables = deb.file(self.ingredients.package(self.pins.firmware("generic")), "usr/share/OVMF/OVMF_VARS_4M.fd")
        enrolled = deb.file(self.ingredients.package(self.pins.firmware("generic")), "usr/share/OVMF/OVMF_VARS_4M.ms.fd")
        tdx = deb.file(self.ingredients.package(self.pins.firmware("inteltdx")), "usr/share/ovmf/OVMF.inteltdx.ms.fd")
        if not tdx.startswith(enrolled) or len(variables) != len(enrolled):
            raise refused("the firmware for TDX does not begin with the variables of OVMF_VARS_4M.ms.fd: they cannot be replaced")
        return {"amdsev": deb.file(self.ingredients.package(self.pins.firmware("amdsev")), "usr/share/ovmf/OVMF.amdsev.fd"),
                "inteltdx": variables + tdx[len(variables):]}

    def _initrd(self, programs: dict[str, Path], library: bytes, modules: dict[str, initrd.Entry], tools: Toolroot, models: Path | None) -> bytes:
        entries = {place: initrd.Entry(path.read_bytes(), executable=True) for place, path in programs.items()}
        entries[initrd.ONNXRUNTIME] = initrd.Entry(library)
        allowed = {p.name for p in self.pins.of_use("image")}
        entries |= initrd.libraries({place: e.body for place, e in entries.items()}, tools, allowed)
        entries |= modules
        entries |= {f"etc/touchstone/{name}": initrd.Entry(self.settings(name).encode()) for name in initrd.SETTINGS}
        entries |= {name: initrd.Entry() for name in initrd.EMPTY}
        if models is not None:
            entries |= initrd.folder(models, "models")
        return initrd.cpio(initrd.with_folders(entries))

    def _disk(self, staging: Path, kernel: bytes, archive: bytes, cmdline: str, release: str, tools: Toolroot) -> None:
        self.say("making the unified kernel image and the disk")
        stub = deb.file(self.ingredients.package(self.pins.of_use("stub")[0]), STUB)
        program = disk.uki(stub, kernel, archive, cmdline, release)
        put(staging / "uki.efi", program)
        esp = staging / "esp.img"
        epoch = self.pins.source_date_epoch + (86400 if self.options.control == "epoch" else 0)
        disk.system_partition(program, esp, tools, epoch)
        parts = [("touchstone-boot", disk.ESP, esp)]
        if (staging / "models.img").exists():
            parts.append((disk.MODELS, disk.DATA, staging / "models.img"))
        disk.disk(staging / "disk.raw", parts)
        esp.unlink()

    def _facts(self, staging: Path, programs: dict[str, Path], library: Path, release: str, models: list) -> dict:
        return {
            "v": "touchstone/image/1",
            **({"control": self.options.control} if self.options.control else {}),
            "files": [{"name": p.name, "size": p.stat().st_size, "sha256": sha256(p)} for p in sorted(staging.iterdir())],
            "inside": [{"name": place, "size": path.stat().st_size, "sha256": sha256(path)} for place, path in
                       sorted({**programs, initrd.ONNXRUNTIME: library}.items())],
            "models": [f"{name}/{version}" for name, version, _ in models],
            "kernel_release": release,
            "packages": [{"name": p.name, "version": p.version, "sha256": p.sha256, "licence": p.licence} for p in self.pins.packages
                         if not {"stub"} & set(p.use) or self.options.disk],
            "rust": {key: self.pins.rust[key] for key in ("release", "rustc_commit", "cargo_commit", "files_sha256")},
            "source_date_epoch": self.pins.source_date_epoch,
        }

    def _entry(self, out: Path, builder: Builder, programs: dict[str, Path], library: Path, models: list) -> list[str]:
        o = self.options
        wishes = entry.Wishes(o.vcpus, o.cpu, o.guest_features, o.page_add_order, o.rtmr0, o.event_log, o.manifest_name, o.manifest_version, o.release,
                              o.issued, o.not_after, o.minimum_tcb)
        written = entry.Entry(o.touchstone or builder.touchstone(), out, self.pins, self.say)
        written.measure(wishes)
        left = written.manifest(wishes, models, programs, library)
        if o.disk:
            left.append("disk.raw and uki.efi: what a platform measures when it boots a disk is not computed, so the manifest says nothing of them; "
                        "the entry is of vmlinuz, initrd.img and cmdline")
        return left


def main(argv: list[str] | None = None) -> int:
    os.umask(0o022)
    options = arguments(argv)
    say = Say("build-image", options.quiet)
    try:
        pins = pinned.load()
        mirror = Mirror(say, options.mirror, options.security_mirror)
        ingredients = Ingredients(pins, ROOT / "target" / "ingredients", say, mirror, options.ingredients, options.offline)
        if options.update_pin:
            found = update_pins(options.update_pin, pins, mirror, not options.unsigned_index)
        else:
            check_machine()
            if options.archive:
                ingredients.archive(options.archive, Rust(pins).cargo)
                found = {"archive": str(options.archive)}
            else:
                found = Image(options, pins, ingredients, say).build()
        if options.json:
            print(json.dumps(found, ensure_ascii=False))
        return 0
    except Stop as stop:
        print(f"build-image: {stop}", file=sys.stderr)
        if options.json:
            print(json.dumps({"error": str(stop), "exit": stop.code}, ensure_ascii=False))
        return stop.code


if __name__ == "__main__":
    sys.exit(main())
