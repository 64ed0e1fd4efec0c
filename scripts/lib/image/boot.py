"""scripts/boot-image: boots exactly the files of an image, asks through the host, checks the answer."""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import hardware  # noqa: E402
import outcomes as o  # noqa: E402
import pins as pinned  # noqa: E402
from build import ours  # noqa: E402
from errors import Arguments, Say, cannot  # noqa: E402
from ingredients import Ingredients  # noqa: E402
from mirror import Mirror  # noqa: E402
from pins import ROOT  # noqa: E402

# Stands in folders that are emptied before they are used again: nobody else's are.
MARK = "made-by-touchstone"

HELP = """\
Boots an image that scripts/build-image made, on an emulated CPU (QEMU without KVM), and shows what comes of it.

Each file is compared with image.json first, then booted as it is. Here no CPU makes quotes, so the image itself must refuse to serve, and say why.
To get an answer all the same, a TEST image is made of it: the same files, with a kernel module in the place of the hardware
that fetches simulated quotes from outside. It is booted over vsock and over a virtio network card; a question is asked through the host under the strict policy and
a manifest of exactly those files, and the answer is judged offline. Nothing is installed, and no root is needed.

The command lines for hosts with SEV-SNP or TDX are printed; nobody has tried them on hardware.

example:
  scripts/build-image && scripts/boot-image
  scripts/boot-image --hardware snp"""

CODES = """\
exit codes:
  0  everything came out as it must
  1  wrong arguments; this machine lacks something; a program does not compile
  2  an ingredient of the test image cannot be had or is not what is pinned
  4  something came out otherwise: what, is said; the logs are kept
  6  QEMU is missing: nothing was booted

Guide: docs/boot.md"""


def shared_options(parser: argparse.ArgumentParser) -> None:
    """The options that scripts/boot-image and scripts/image-test have in common."""
    add = parser.add_argument
    add("--work", type=Path, metavar="DIR", default=ROOT / "target" / "image-work", help="where tools are unpacked and programs built (target/image-work)")
    add("--test-image", type=Path, metavar="DIR", default=ROOT / "target" / "image-test", help="where test images go (target/image-test)")
    add("--ingredients", type=Path, metavar="DIR", help="as scripts/build-image takes it")
    add("--offline", action="store_true", help="fetch nothing")
    add("--mirror", metavar="URL", help="as scripts/build-image takes it")
    add("--security-mirror", metavar="URL", help="likewise")
    add("--jobs", type=int, metavar="N", help="jobs of cargo's at once")
    add("--json", action="store_true", help="print one JSON object: outcomes, boot times, sizes, where the logs are; or what went wrong")
    add("--quiet", action="store_true", help="say nothing of progress")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Arguments(prog="scripts/boot-image", description=HELP, epilog=CODES, formatter_class=argparse.RawDescriptionHelpFormatter,
                       allow_abbrev=False)  # fmt: skip
    add = parser.add_argument
    add("--image", type=Path, metavar="DIR", default=ROOT / "target" / "image", help="the image (target/image)")
    add("--vsock", action="store_true", help="over vsock alone (both, unless said otherwise)")
    add("--net", action="store_true", help="over a virtio network card alone")
    add("--disk", action="store_true", help="also boot a disk of the test image by UEFI firmware, reached over TCP")
    add("--tee", choices=("sev-snp", "tdx"), default="sev-snp", help="which hardware's quotes are simulated (%(default)s)")
    add("--hardware", choices=("snp", "tdx", "both"), help="print the command line for a host with that hardware, and boot nothing")
    add("--logs", type=Path, metavar="DIR", help="where consoles, logs and answers are kept (a new folder below target/boot)")
    shared_options(parser)
    return parser.parse_args(argv)


class Bench:
    """An image and its test image, ready to be booted; used by scripts/boot-image and scripts/image-test."""

    def __init__(self, options: argparse.Namespace, say: Say, logs: Path):
        self.options, self.say, self.logs = options, say, logs
        self.image = options.image.resolve()
        import testimage
        from stack import binary
        from vm import VSOCK_DEVICE, vsock_device

        self.testimage, self.facts = testimage, testimage.checked(self.image)
        self.cmdline = (self.image / "cmdline").read_text()
        if self.facts.get("test"):
            raise cannot(f"{self.image} is a test image: name the image that it was made of")
        say("building the host, the command and the simulated platform")
        o.host_programs(options.jobs)
        self.touchstone = binary("touchstone")
        say(f"building {VSOCK_DEVICE[0]} {VSOCK_DEVICE[1]}, if it is not there")
        vsock_device()
        self.pins = pinned.load()
        mirror = Mirror(say, options.mirror, options.security_mirror)
        self.ingredients = Ingredients(self.pins, ROOT / "target" / "ingredients", say, mirror, options.ingredients, options.offline)
        self.shop = None

    def test_image(self, tee: str):
        """The test image for a kind of TEE, built; ways of booting and the manifest are the caller's."""
        options = self.options
        ours(options.test_image, MARK, "--test-image")
        options.test_image.mkdir(parents=True, exist_ok=True)
        (options.test_image / MARK).touch()
        made = self.testimage.TestImage(self.image, options.test_image.resolve() / tee, tee, self.touchstone, self.pins, self.ingredients,
                                        options.work.resolve(), self.say)  # fmt: skip
        if self.shop is None:
            self.shop = self.testimage.workshop(self.pins, self.ingredients, options.work.resolve(), self.say, self.facts, options.jobs)
        made.build(*self.shop)
        return made

    def devices(self, cmdline: str) -> dict:
        """What the image needs to be given with this command line."""
        net = "touchstone.net=" in cmdline
        return {"vsock": not net, "net": net, "disks": (self.image / "models.img",) if "touchstone.models=" in cmdline else ()}

    def must_end(self, name: str, cmdline: str, why: str, **how) -> str:
        """Boots the image itself with this command line: it must not start, for this reason."""
        import scene

        machine = scene.Guest(self.logs / name, kernel=self.image / "vmlinuz", initrd=self.image / "initrd.img", cmdline=cmdline,
                              **{**self.devices(cmdline), **how})  # fmt: skip
        with machine as guest:
            return ended(guest.wait_for_end(scene.BOOT_SECONDS), why)

    def refuses(self) -> str:
        """The image itself, on a machine that gives no quotes."""
        return self.must_end("release", self.cmdline, "no quote provider: ")


def ended(console: str, why: str, started: bool = False) -> str:
    """What a guest said that must not serve: this reason, a power off, and that nothing was started, or that it was."""
    from stack import Failed

    said = [line for line in console.splitlines() if line.startswith("touchstone-init: ")]
    last = said[-1].removeprefix("touchstone-init: ") if said else ""
    was_started = any(line.startswith("touchstone-init: started /") for line in said)
    if not last.startswith("powering off: ") or why not in last or was_started != started or "reboot: Power down" not in console:
        raise Failed(f"expected a power off because of `{why}`, found:\n{console[-2000:]}")
    return last


def boots(bench: Bench, outcomes: o.Outcomes) -> dict[str, float]:
    """The image by itself, and its test image over each network asked for. Boot times in seconds."""
    import scene

    options, times = bench.options, {}
    outcomes.run("the image refuses without a quote provider", bench.refuses)
    both = not (options.vsock or options.net or options.disk)
    test = bench.test_image(options.tee)
    ways = {}
    if options.vsock or both:
        ways["vsock"] = test.way("vsock")
    if options.net or both:
        ways["net"] = test.way("net", bench.testimage.DHCP)
    if not ways:
        # A manifest has one entry at least.
        test.way("vsock")
    test.sign([test.models()])
    for name, way in ways.items():
        outcomes.run(f"a question over {'virtio-net' if name == 'net' else name} is answered",
                     lambda name=name, way=way: answers(bench, test, way, times, net=name == "net"))  # fmt: skip
    if options.disk:
        outcomes.run("a disk boots by UEFI firmware and answers over TCP", lambda: disk_answers(bench, test, times))
    return times


def answers(bench: Bench, test, way, times: dict[str, float], *, net: bool = False, disks: tuple[Path, ...] = (), asked=("digits_cnn", 1),
            fault: str = "none", more=lambda stage: "") -> str:  # fmt: skip
    """Boots the test image one way, asks, and judges the answer. `more` may look at the running scene; what it says is said too."""
    import scene

    folder = bench.logs / way.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fault").write_text(f"{fault}\n")
    machine = scene.guest(folder, way, test.out / "vmlinuz", vsock=True, net=net, disks=disks)
    with scene.Scene(folder, machine, platform=way.platform[test.tee], tee=test.tee) as stage:
        times[way.name] = stage.serve()
        found = f"ready after {times[way.name]:.1f} s; {stage.answered(test, *asked, asked[0])}"
        return "; ".join(filter(None, [found, more(stage)]))


def disk_answers(bench: Bench, test, times: dict[str, float]) -> str:
    """The disk: what a platform measures of one is not computed, so the policy names the (simulated) measurement itself."""
    import scene

    folder, disk, firmware = bench.logs / "disk", *test.disk()
    folder.mkdir(parents=True)
    # The firmware writes its variables.
    variables = shutil.copyfile(firmware[1], folder / "variables.fd")
    measurement = hashlib.sha384(disk.read_bytes()).hexdigest()
    machine = scene.Guest(folder, firmware=(firmware[0], variables), disks=(disk,), vsock=True, net=True, alone=True)
    with scene.Scene(folder, machine, platform=["--measurement", measurement]) as stage:
        times["disk"] = stage.serve()
        return (f"ready after {times['disk']:.1f} s; "
                f"{stage.answered(test, 'digits_cnn', 2, 'digits', measurements={'snp.measurement': measurement})}")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    say = Say("boot-image", options.quiet)
    if options.hardware:
        line = options.image / "cmdline"
        if not line.is_file():
            raise cannot(f"{options.image} holds no image: {line.name} is missing. scripts/build-image makes one")
        net = "touchstone.net=" in line.read_text()
        print({"snp": hardware.snp, "tdx": hardware.tdx, "both": hardware.both}[options.hardware](options.image, net=net))
        if options.hardware != "both":
            print(f"boot-image: {hardware.UNTRIED}", file=sys.stderr)
        return 0
    if options.disk and options.tee == "tdx":
        raise cannot("--disk with --tee tdx: what a disk's boot leaves in TDX's registers is not computed")
    version = o.qemu_or_stop()
    if options.logs:
        logs = options.logs.resolve()
        ours(logs, MARK, "--logs")
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
    else:
        (ROOT / "target" / "boot").mkdir(parents=True, exist_ok=True)
        logs = Path(tempfile.mkdtemp(prefix="", dir=ROOT / "target" / "boot"))
    (logs / MARK).touch()
    say(f"QEMU {version}; consoles and logs are kept in {logs}")
    bench, outcomes = Bench(options, say, logs), o.Outcomes(say)
    times = boots(bench, outcomes)
    if options.json:
        print(json.dumps(o.report(outcomes, times, bench.facts, logs, version)))
    else:
        print(f"\n{outcomes.table()}\n\n{hardware.both(options.image, 'touchstone.net=' in bench.cmdline)}\n\n{o.figures(times, bench.facts)}")
        print(outcomes.closing())
    return 0 if outcomes.right == len(outcomes.list) else 4


def main(argv: list[str] | None = None) -> int:
    os.umask(0o022)
    options = arguments(argv)
    return o.guarded("boot-image", options.json, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
