"""Makes a TEST image out of a release image: the same files, and behind its initrd a second archive with what only tests have.

- /usr/bin/enclave is the probe program (enclave/image/test/probe), and the enclave stands beside it as enclave.real;
- a kernel module stands in for the hardware: a quote provider fed from outside (enclave/image/test/module), in init.toml's list;
- the command line lacks `lockdown`, under which the kernel would refuse a module that Debian did not sign. PID 1 locks it down all the same, after that;
- /models holds the repository's examples, for which there are questions and right answers; `touchstone.models` and `touchstone.net` are set anew.

Everything else is the release's, byte for byte. image.json says "test": true, and the manifest is signed by a key that is made for the run.
"""
from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import deb
import disk
import entry
import initrd
import volume
from errors import Say, cannot
from ingredients import Ingredients, put, sha256
from kbuild import MODULE, Kbuild
from pins import ROOT, Pins
from programs import Builder
from toolroot import Rust, Toolroot, alone_in

ENCLAVE, REAL = "usr/bin/enclave", "usr/bin/enclave.real"
PROBE = ("touchstone-image-probe", "image-probe")
STUB = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
# The simulated platform's RTMR0: QEMU's tables are not computed, and no hardware made any here.
RTMR0 = "a0" * 48
# Words of the command line for QEMU's own network.
DHCP, STATIC = "touchstone.net=dhcp", "touchstone.net=10.0.2.15/24,10.0.2.2"
TCB = ("Genoa:bootloader=0,tee=0,snp=23,microcode=84", "tcb_evaluation_data_number=1")


def unpacked(archive: bytes) -> dict[str, initrd.Entry]:
    """An archive that build-image made, read back."""
    found = {}
    for name, mode, body in initrd.read(archive):
        file = mode & 0o170000 == 0o100000
        found[name] = initrd.Entry(body if file else None, executable=file and bool(mode & 0o100))
    return found


def checked(image: Path) -> dict:
    """image.json of a folder, after each file's digest was compared with it."""
    try:
        facts = json.loads((image / "image.json").read_text())
    except (OSError, ValueError) as error:
        raise cannot(f"{image} holds no image: {error}. scripts/build-image makes one") from None
    for file in facts["files"]:
        path = image / file["name"]
        if not path.is_file() or sha256(path) != file["sha256"]:
            raise cannot(f"{path} is not the file that image.json names (SHA-256 {file['sha256']}): it was changed, or is of another build")
    return facts


@dataclass
class Measured:
    """What evidence must report about one way of booting: kernel, initrd and command line."""

    name: str
    initrd: Path
    cmdline: str
    # What the simulated platform is told to report, by kind of TEE.
    platform: dict[str, list[str]] = field(default_factory=dict)


class TestImage:
    """A test image in `out`, of the release image in `release`. One folder serves one kind of TEE."""

    def __init__(self, release: Path, out: Path, tee: str, touchstone: Path, pins: Pins, ingredients: Ingredients, work: Path, say: Say):
        self.release, self.out, self.tee, self.touchstone = release, out, tee, touchstone
        self.pins, self.ingredients, self.work, self.say = pins, ingredients, work, say
        self.facts = checked(release)
        self.ways: dict[str, Measured] = {}
        self.base = (release / "initrd.img").read_bytes()
        self.entries = unpacked(self.base)
        words = [w for w in (release / "cmdline").read_text().split() if not w.startswith(("lockdown=", "touchstone."))]
        self.cmdline = " ".join(words)

    # Making it

    def build(self, tools: Toolroot, kbuild: Kbuild, probe: Path) -> None:
        """Writes the files; `way` then adds ways of booting, and `sign` the manifest over all of them."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        for name in ("vmlinuz", "OVMF.amdsev.fd", "OVMF.inteltdx.fd"):
            shutil.copyfile(self.release / name, self.out / name)
        self.tools = tools
        self.module = kbuild.module(self.tee == "tdx")
        self.probe = probe.read_bytes()
        self.overlay = initrd.cpio(initrd.with_folders({
            ENCLAVE: initrd.Entry(self.probe, executable=True),
            REAL: initrd.Entry(self.entries[ENCLAVE].body, executable=True),
            f"usr/lib/modules/{MODULE}": initrd.Entry(self.module),
            "etc/touchstone/init.toml": initrd.Entry(self.init_toml().encode()),
            # The models that there are questions for, whatever the image has, and wherever.
            **initrd.folder(self.models(), "models"),
        }))  # fmt: skip
        put(self.out / "initrd.img", self.base + self.overlay)
        put(self.out / "cmdline", self.cmdline.encode())

    def init_toml(self) -> str:
        """The release's, which loads the module as well, and vsock always: quotes come by it even where the guest is reached by TCP."""
        text = self.entries["etc/touchstone/init.toml"].body.decode()
        lists = initrd.module_names(text)
        always = ", ".join(f'"{name}"' for name in [*lists["always"], *lists["vsock"], MODULE])
        text, count = re.subn(r"^always\s*=\s*\[.*?\]", f"always = [{always}]", text, count=1, flags=re.M | re.S)
        if count != 1:
            raise cannot("init.toml of the release image has no list `always`")
        return f"# TEST IMAGE: its quotes are simulated.\n{text}"

    def way(self, name: str, *words: str, archive: bytes | None = None, listed: bool = True) -> Measured:
        """A way of booting, measured: the command line with these words, the initrd or another one. `listed`: the manifest has it."""
        folder = self.out / "ways" / name
        folder.mkdir(parents=True)
        for file in ("vmlinuz", "OVMF.amdsev.fd", "OVMF.inteltdx.fd"):
            (folder / file).symlink_to(f"../../{file}")
        if archive is None:
            (folder / "initrd.img").symlink_to("../../initrd.img")
        else:
            put(folder / "initrd.img", archive)
        cmdline = " ".join([self.cmdline, *words])
        put(folder / "cmdline", cmdline.encode())
        measured = Measured(name, folder / "initrd.img", cmdline)
        written = entry.Entry(self.touchstone, folder, self.pins, lambda message: None)
        written.measure(entry.Wishes(vcpus="2", cpu="EPYC-Genoa", page_add_order="one-pass", rtmr0=[RTMR0]))
        (snp,) = json.loads((folder / "measured-snp.json").read_text())["measurements"]
        (tdx,) = json.loads((folder / "measured-tdx.json").read_text())["measurements"]
        measured.platform["sev-snp"] = ["--measurement", snp["snp"]["measurement"]]
        tdx = tdx["tdx"]
        measured.platform["tdx"] = ["--measurement", tdx["mrtd"], "--rtmr", f"0={tdx['rtmr0'][0]}", "--rtmr", f"1={tdx['rtmr1']}",
                                    "--rtmr", f"2={tdx['rtmr2']}", "--rtmr", f"3={'00' * 48}"]  # fmt: skip
        if listed:
            self.ways[name] = measured
        return measured

    def sign(self, repositories: list[Path]) -> None:
        """The manifest of all listed ways and models, signed by a key of this run: manifest.jsonl, signer.pub.pem."""
        run = self._touchstone
        draft, key = self.out / "manifest.draft.json", self.out / "signer.pem"
        for file in (draft, key, self.out / "manifest.jsonl"):
            file.unlink(missing_ok=True)
        (self.out / "signer.pub.pem").write_text(run("manifest", "key", "-o", key))
        run("manifest", "new", "--name", "touchstone-test-image", "--version", 1, "--not-after", "2099-01-01T00:00:00Z", "-o", draft)
        tcb, measured = (TCB[0], "measured-snp.json") if self.tee == "sev-snp" else (TCB[1], "measured-tdx.json")
        says = [word for role in ("firmware", "kernel") for word in ("--origin", f"{role}=pinned-binary", "--source", f"{role}=Debian")]
        says += [word for role in ("initrd", "cmdline") for word in ("--origin", f"{role}=rebuilt", "--source", f"{role}=a TEST image")]
        for name in self.ways:
            run("manifest", "add", draft, "--release", "TEST", "--platform", name, "--measured", self.out / "ways" / name / measured,
                "--quote-source", "exclusive", "--minimum-tcb", tcb, *says)  # fmt: skip
        digests = {}
        for repository in repositories:
            for model, version, folder in entry.models_of(repository):
                digest = run("model", "digest", folder).split()[0]
                if digests.setdefault(digest, (model, version)) == (model, version):
                    run("manifest", "add-model", draft, "--name", model, "--version", version, "--digest", digest)
        run("manifest", "sign", draft, "--key", key, "-o", self.out / "manifest.jsonl")
        files = [path for path in sorted(self.out.iterdir()) if path.is_file() and path.name not in ("image.json", "signer.pem")]
        facts = {**self.facts, "test": True, "files": [{"name": p.name, "size": p.stat().st_size, "sha256": sha256(p)} for p in files]}
        put(self.out / "image.json", (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())

    def models(self) -> Path:
        """The repository's examples, which images hold where nobody says otherwise."""
        return ROOT / "enclave" / "tests" / "data" / "models"

    def volume(self, models: Path) -> tuple[Path, str]:
        """A volume with these models, and the word of the command line that names it."""
        image = self.out / "models.img"
        return image, volume.build(models, image, self.work, self.tools).word

    def disk(self) -> tuple[Path, tuple[Path, Path]]:
        """A disk with the unified kernel image of this test image, reached by TCP, and generic firmware to boot it: code and variables."""
        stub = deb.file(self.ingredients.package(self.pins.of_use("stub")[0]), STUB)
        generic = self.ingredients.package(self.pins.firmware("generic"))
        firmware = []
        for name in ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"):
            put(self.out / name, deb.file(generic, f"usr/share/OVMF/{name}"))
            firmware.append(self.out / name)
        program = disk.uki(stub, (self.out / "vmlinuz").read_bytes(), (self.out / "initrd.img").read_bytes(),
                           f"{self.cmdline} {STATIC}", self.facts["kernel_release"])  # fmt: skip
        system = self.out / "esp.img"
        disk.system_partition(program, system, self.tools, self.pins.source_date_epoch)
        disk.disk(self.out / "disk.raw", [("touchstone-boot", disk.ESP, system)])
        system.unlink()
        return self.out / "disk.raw", (firmware[0], firmware[1])

    def files(self) -> list[str]:
        """Every file in the initrd but the models: what the guest must find there, and nothing else."""
        names = {name for name, found in {**self.entries, **unpacked(self.overlay)}.items() if found.body is not None}
        return sorted(f"/{name}" for name in names if not name.startswith("models/"))

    def changed(self) -> bytes:
        """The initrd with one byte changed, in a comment of the enclave's settings: it boots and serves as before."""
        archive = bytearray((self.out / "initrd.img").read_bytes())
        comment = self.entries["etc/touchstone/enclave-vsock.toml"].body
        if not comment.startswith(b"#"):
            raise cannot("enclave-vsock.toml does not begin with a comment")
        archive[archive.index(comment) + 1] ^= 0x0E
        return bytes(archive)

    def _touchstone(self, *arguments) -> str:
        done = subprocess.run([self.touchstone, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise cannot(f"touchstone {arguments[0]} {arguments[1]} ended with {done.returncode}:\n{done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def probe_program(builder: Builder) -> Path:
    """The probe program, built as the image's own programs are."""
    package, program = PROBE
    builder.say(f"building {package}")
    builder.cargo(package)
    return builder.target / "release" / program


def workshop(pins: Pins, ingredients: Ingredients, work: Path, say: Say, facts: dict, jobs: int | None) -> tuple[Toolroot, Kbuild, Path]:
    """The pinned tools, the kernel's build system, and the probe program, in the folder in which scripts/build-image works."""
    rust = Rust(pins)
    rust.check()
    with alone_in(work):
        tools = Toolroot.unpack(work / "toolroot", pins, ingredients)
        builder = Builder(pins, rust, tools, ingredients, work, say, jobs)
        builder.check_configuration()
        builder.fetch()
        probe = probe_program(builder)
        say("building the test image's kernel module")
        return tools, Kbuild(work / "kbuild", pins.of_use("kernel")[0], facts["kernel_release"], ingredients, tools), probe
