"""scripts/image-test: an image and its test image, booted in every way that matters; each outcome is asserted."""
from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import initrd  # noqa: E402
import outcomes as o  # noqa: E402
from boot import MARK, Bench, answers, disk_answers, ended, shared_options  # noqa: E402
from build import ours  # noqa: E402
from errors import Arguments, Say, Stop  # noqa: E402
from pins import ROOT  # noqa: E402
from repro import built_with  # noqa: E402

HELP = """\
Builds the guest image (or takes one), makes a TEST image of it, and boots both under QEMU on an emulated CPU, again and again:
what must be refused is refused for the right reason, what must be answered is answered and judged, and a program inside looks whether the guest
is as closed as it is said to be. No KVM, no root.

example:
  scripts/image-test
  scripts/image-test --image target/image --only vsock"""

CODES = """\
exit codes:
  0  every outcome as expected
  1, 2, 3  no image was made (scripts/build-image --help)
  4  an outcome is not as expected
  6  SKIPPED: QEMU is missing, nothing was tested

Guide: docs/boot.md"""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Arguments(prog="scripts/image-test", description=HELP, epilog=CODES, formatter_class=argparse.RawDescriptionHelpFormatter,
                       allow_abbrev=False)  # fmt: skip
    add = parser.add_argument
    add("--image", type=Path, metavar="DIR", help="an image that scripts/build-image made, instead of building one")
    add("--only", action="append", metavar="WORD", help="only outcomes whose names have this word; repeat")
    add("--logs", type=Path, metavar="DIR", default=ROOT / "target" / "image-test-logs", help="consoles, logs and answers, emptied first (target/image-test-logs)")
    shared_options(parser)
    return parser.parse_args(argv)


def build(options: argparse.Namespace, say: Say) -> Path:
    """The image of this source, by scripts/build-image."""
    out = ROOT / "target" / "image"
    command = [sys.executable, str(Path(__file__).with_name("build.py")), "--out", str(out), "--work", str(options.work), "--no-entry", *built_with(ROOT)]  # fmt: skip
    for flag in ("ingredients", "mirror", "security_mirror", "jobs"):
        if getattr(options, flag) is not None:
            command += [f"--{flag.replace('_', '-')}", str(getattr(options, flag))]
    command += ["--offline"] if options.offline else []
    say("building the image: scripts/build-image")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if done.returncode:
        raise Stop(done.returncode, "the image was not built: what is above says why")
    return out


class Tests:
    """What is tried, in the order of a guest's life."""

    def __init__(self, bench: Bench, outcomes: o.Outcomes, only: list[str] | None):
        import scene
        import testimage
        from stack import Failed, touchstone

        self.bench, self.outcomes, self.only = bench, outcomes, only
        self.scene, self.testimage, self.Failed, self.touchstone = scene, testimage, Failed, touchstone
        self.times: dict[str, float] = {}

    def wanted(self, name: str) -> bool:
        return not self.only or any(word in name for word in self.only)

    def run(self, name: str, tried) -> None:
        if self.wanted(name):
            self.outcomes.run(name, tried)

    # The release image: it must not start.

    def release(self) -> None:
        line, refused = self.bench.cmdline, self.bench.must_end
        self.run("release image: no quote provider, refused", lambda: refused("no-provider", line, "no quote provider: "))
        self.run("release image: unknown word on the command line, refused",
                 lambda: refused("unknown-word", f"{line} touchstone.shell=1", "unknown word `touchstone.shell=1`"))  # fmt: skip
        self.run("release image: another init asked for, refused", lambda: refused("other-init", f"{line} init=/bin/sh", "unknown word `init=/bin/sh`"))
        self.run("release image: a word is missing, refused",
                 lambda: refused("missing-word", line.replace(" random.trust_cpu=on", ""), "lacks the word `random.trust_cpu=on`"))  # fmt: skip
        self.run("release image: a CPU without RDRAND, refused", lambda: refused("no-rdrand", line, "the CPU has no RDRAND", cpu="qemu64"))
        self.run("release image: no program but PID 1 and the enclave, nothing of the test's", self.nothing_of_tests)

    def nothing_of_tests(self) -> str:
        """By the archive itself: all that is in it is on the list of what may be, and what the test image adds is not."""
        archive = (self.bench.image / "initrd.img").read_bytes()
        initrd.check(archive)
        found = initrd.listing(archive)
        tests = {self.testimage.REAL, f"usr/lib/modules/{self.testimage.MODULE}"} & set(found)
        if tests:
            raise self.Failed(f"found {', '.join(sorted(tests))}")
        return f"{len(found)} entries, all of them expected"

    # The test image: it answers, and looks around.

    def probes(self, stage, test, way) -> str:
        """What the program inside found: each probe is an outcome, and what only we can compare is compared."""
        all_of_them = int(stage.guest.wait_for(r"^PROBES \d+ of (\d+)$", 120)[1])
        console = stage.guest.console()
        found = re.findall(r"^PROBE (\S+) (ok|FAILED): (.*)$", console, re.M)
        expected = {"cmdline": way.cmdline, "tree": " ".join(test.files())}
        for name, verdict, said in found:
            right = verdict == "ok" and (name not in expected or said.split("; ", 1)[-1] == expected[name])
            self.outcomes.add(f"{way.name}: inside, {name}", right, said)
        if len(found) != all_of_them or len(found) < 20:
            raise self.Failed(f"{len(found)} of {all_of_them} probes said something")
        return f"{len(found)} probes"

    def test_image(self) -> None:
        test = self.bench.test_image("sev-snp")
        small = self.bench.logs / "models"
        shutil.copytree(test.models() / "wine_rf", small / "wine_rf")
        volume, word = test.volume(small)
        vsock, net, models = test.way("vsock"), test.way("net", self.testimage.DHCP), test.way("volume", word)
        test.sign([test.models()])

        def looks(way):
            return lambda stage: self.probes(stage, test, way)

        # The platform says "busy" twice first: the kernel's EBUSY, and the enclave asks again.
        self.run("test image: a question over vsock is answered", lambda: answers(self.bench, test, vsock, self.times, fault="busy:2", more=looks(vsock)))
        self.run("test image: a question over virtio-net (DHCP) is answered", lambda: answers(self.bench, test, net, self.times, net=True, more=looks(net)))
        self.run("test image: one changed byte in the initrd, refused", lambda: self.changed(test))

        def only_the_volume(stage) -> str:
            done = stage.ask(test, "digits_cnn", 1, "not-on-it")
            if done.returncode == 0 or "404" not in done.stdout + done.stderr:
                raise self.Failed(f"a model that is not on the volume: exit {done.returncode}, {done.stdout}{done.stderr}")
            return "a model that is not on it is not found"

        self.run("test image: models on a volume, answered",
                 lambda: answers(self.bench, test, models, self.times, disks=(volume,), asked=("wine_rf", 0), more=only_the_volume))  # fmt: skip
        self.run("test image: the volume's first block changed, refused", lambda: self.corrupt(test, models, volume, "first-block", 1024, "is corrupt"))
        inside = volume.read_bytes().index((small / "wine_rf" / "1" / "model.onnx").read_bytes()[4096:4160])
        self.run("test image: a byte of a model on the volume changed, refused",
                 lambda: self.corrupt(test, models, volume, "model-byte", inside, "the enclave ended: "))  # fmt: skip
        self.run("test image: a disk boots by UEFI firmware and answers over TCP", lambda: disk_answers(self.bench, test, self.times))

    def changed(self, test) -> str:
        """It boots and serves as before, and the (simulated) platform reports what hardware would: the manifest does not have it."""
        way = test.way("changed", archive=test.changed(), listed=False)
        folder = self.bench.logs / way.name
        machine = self.scene.guest(folder, way, test.out / "vmlinuz", vsock=True)
        with self.scene.Scene(folder, machine, platform=way.platform[test.tee]) as stage:
            self.times[way.name] = stage.serve()
            return stage.refused(test, "digits_cnn", 1, "digits", 4, ("snp.measurement", "manifest.platform"))

    def corrupt(self, test, way, volume: Path, name: str, at: int, why: str) -> str:
        folder = self.bench.logs / name
        folder.mkdir(parents=True)
        data = bytearray(volume.read_bytes())
        data[at] ^= 1
        (folder / "models.img").write_bytes(data)
        machine = self.scene.guest(folder, way, test.out / "vmlinuz", vsock=True, disks=(folder / "models.img",))
        with self.scene.Scene(folder, machine, platform=way.platform[test.tee]) as stage:
            console = stage.guest.wait_for_end(self.scene.BOOT_SECONDS)
            inside = "enclave" in why
            # What the enclave could not read is the model; PID 1 says how it ended.
            if inside and not re.search(r"^enclave: .*model\.onnx: Input/output error", console, re.M):
                raise self.Failed(f"the enclave did not say that it cannot read the model:\n{console[-1000:]}")
            return ended(console, why, started=inside)

    def tdx(self) -> None:
        name = "test image for TDX: a question over vsock is answered"
        if not self.wanted(name):
            return
        test = self.bench.test_image("tdx")
        way = test.way("tdx")
        test.sign([test.models()])
        self.run(name, lambda: answers(self.bench, test, way, self.times))


def run(options: argparse.Namespace) -> int:
    say, began = Say("image-test", options.quiet), time.monotonic()
    version = o.qemu_or_stop()
    options.image = options.image or build(options, say)
    logs = options.logs.resolve()
    ours(logs, MARK, "--logs")
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    (logs / MARK).touch()
    say(f"QEMU {version}; consoles and logs are kept in {logs}")
    bench, outcomes = Bench(options, say, logs), o.Outcomes(say)
    tests = Tests(bench, outcomes, options.only)
    tests.release()
    tests.test_image()
    tests.tdx()
    if options.json:
        print(json.dumps(o.report(outcomes, tests.times, bench.facts, logs, version)))
    else:
        print(f"\n{outcomes.table()}\n\n{o.figures(tests.times, bench.facts)}")
        print(f"image-test: {outcomes.closing()}, in {time.monotonic() - began:.0f} s")
    return 0 if outcomes.list and outcomes.right == len(outcomes.list) else 4


def main(argv: list[str] | None = None) -> int:
    os.umask(0o022)
    options = arguments(argv)
    return o.guarded("image-test", options.json, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
