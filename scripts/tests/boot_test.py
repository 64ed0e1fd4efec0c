"""What boots and judges images, piece by piece, without QEMU: python3 scripts/tests/boot_test.py

Each refusal stands beside what is accepted and differs from it in one thing."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "lib" / "image"))

import boot  # noqa: E402
import hardware  # noqa: E402
import imagetest  # noqa: E402
import initrd  # noqa: E402
import kbuild  # noqa: E402
import outcomes  # noqa: E402
import pins as pinned  # noqa: E402
import testimage  # noqa: E402
from errors import Say, Stop  # noqa: E402
from ingredients import sha256  # noqa: E402
from stack import Failed  # noqa: E402
from vm import Guest  # noqa: E402

QUIET = Say("test", quiet=True)
CONSOLE = """touchstone-init: network: vsock alone
touchstone-init: powering off: no quote provider: No such device or address (os error 6)
[    4.721305] reboot: Power down
"""


class Ends(unittest.TestCase):
    def test_only_this_reason_and_a_power_off_is_an_end(self):
        self.assertIn("no quote provider", boot.ended(CONSOLE, "no quote provider: "))
        for console, why in (
            (CONSOLE, "lacks the word"),
            (CONSOLE.replace("reboot: Power down", ""), "no quote provider: "),
            (CONSOLE.replace("powering off: ", ""), "no quote provider: "),
            (CONSOLE.replace("touchstone-init: powering", "powering"), "no quote provider: "),
            (f"touchstone-init: started /usr/bin/enclave as user 1000\n{CONSOLE}", "no quote provider: "),
            ("", "no quote provider: "),
        ):
            with self.assertRaises(Failed, msg=console):
                boot.ended(console, why)

    def test_where_the_enclave_must_have_been_started_it_must_have_been(self):
        ended = CONSOLE.replace("no quote provider", "the enclave ended: exit code 1")
        started = f"touchstone-init: started /usr/bin/enclave as user 1000\n{ended}"
        self.assertIn("exit code 1", boot.ended(started, "the enclave ended: ", started=True))
        with self.assertRaises(Failed):
            boot.ended(ended, "the enclave ended: ", started=True)


class Probes(unittest.TestCase):
    """What the program inside says, as `image-test` takes it."""

    def judged(self, *lines: str) -> outcomes.Outcomes:
        found = outcomes.Outcomes(QUIET)
        tests = object.__new__(imagetest.Tests)
        tests.outcomes, tests.Failed = found, Failed
        console = "\n".join(lines) + "\n"
        stage, test, way = mock.Mock(), mock.Mock(), mock.Mock()
        stage.guest.console.return_value = console
        stage.guest.wait_for.side_effect = lambda pattern, seconds: re.search(pattern, console, re.M)
        test.files.return_value = ["/init", "/usr/bin/enclave"]
        way.name, way.cmdline = "vsock", "panic=-1 quiet"
        found.run("all", lambda: tests.probes(stage, test, way))
        return found

    def test_each_is_an_outcome_and_some_are_compared_here(self):
        others = [f"PROBE p{n} ok: fine" for n in range(18)]
        good = [*others, "PROBE cmdline ok: panic=-1 quiet", "PROBE tree ok: 5 in /models; /init /usr/bin/enclave", "PROBES 20 of 20"]
        found = self.judged(*good)
        self.assertEqual((found.right, len(found.list)), (21, 21))
        for at, line, wrong in (
            (0, "PROBE p0 FAILED: a shell", 1),
            (18, "PROBE cmdline ok: panic=-1 quiet init=/bin/sh", 1),
            (19, "PROBE tree ok: 5 in /models; /bin/sh /init /usr/bin/enclave", 1),
            # One that says nothing is missed.
            (0, "something else", 1),
        ):
            lines = [*good]
            lines[at] = line
            found = self.judged(*lines)
            self.assertEqual(sum(not one.right for one in found.list), wrong, line)
        fewer = self.judged(*good[:5], "PROBES 5 of 5")
        self.assertFalse(fewer.list[-1].right)


class Images(unittest.TestCase):
    def test_exactly_the_files_of_image_json_are_booted(self):
        with tempfile.TemporaryDirectory() as folder:
            image = Path(folder)
            with self.assertRaisesRegex(Stop, "holds no image"):
                testimage.checked(image)
            (image / "initrd.img").write_bytes(b"initrd")
            facts = {"files": [{"name": "initrd.img", "size": 6, "sha256": sha256(image / "initrd.img")}]}
            (image / "image.json").write_text(json.dumps(facts))
            self.assertEqual(testimage.checked(image), facts)
            (image / "initrd.img").write_bytes(b"initre")
            with self.assertRaisesRegex(Stop, "not the file that image.json names"):
                testimage.checked(image)
            (image / "initrd.img").unlink()
            with self.assertRaises(Stop):
                testimage.checked(image)

    def test_an_archive_is_read_back_as_it_was_made(self):
        entries = initrd.with_folders({"init": initrd.Entry(b"\x7fELF", executable=True), "etc/a": initrd.Entry(b"text")})
        self.assertEqual(testimage.unpacked(initrd.cpio(entries)), entries)

    def test_the_test_images_settings_differ_in_one_list(self):
        released = (ROOT / "enclave" / "image" / "init.toml").read_text()
        image = object.__new__(testimage.TestImage)
        image.entries = {"etc/touchstone/init.toml": initrd.Entry(released.encode())}
        changed = image.init_toml()
        before, after = initrd.module_names(released), initrd.module_names(changed)
        self.assertEqual(after["always"], [*before["always"], *before["vsock"], kbuild.MODULE])
        self.assertEqual({k: v for k, v in after.items() if k != "always"}, {k: v for k, v in before.items() if k != "always"})
        self.assertEqual(len(set(changed.splitlines()) - set(released.splitlines())), 2)

    def test_headers_are_of_the_images_own_kernel(self):
        (kernel,) = pinned.load().of_use("kernel")
        self.assertTrue(kbuild.pins(kernel))
        other = pinned.Package(**{**vars(kernel), "version": "6.12.999-1"})
        with self.assertRaisesRegex(Stop, "6.12.999-1"):
            kbuild.pins(other)

    def test_no_release_names_what_is_the_tests(self):
        for path in (ROOT / "enclave" / "image").glob("*.*"):
            self.assertNotIn("touchstone_test", path.read_text(), path)


class Machines(unittest.TestCase):
    def test_the_hardwares_command_lines_measure_what_is_booted(self):
        image = Path("an image")
        for line, words in (
            (hardware.snp(image), ("kernel-hashes=on", "policy=0x30000", "'an image/OVMF.amdsev.fd'", "confidential-guest-support=sev")),
            (hardware.tdx(image), ('"qom-type":"tdx-guest"', "'an image/OVMF.inteltdx.fd'", "confidential-guest-support=tdx")),
        ):
            for word in (*words, "'an image/vmlinuz'", "'an image/initrd.img'", "\"$(cat 'an image/cmdline')\"", "vhost-vsock-pci"):
                self.assertIn(word, line)
            self.assertEqual(subprocess.run(["sh", "-n", "-c", line]).returncode, 0)
        self.assertIn("virtio-net-pci", hardware.snp(image, net=True))
        self.assertNotIn("vsock", hardware.snp(image, net=True))
        self.assertEqual(hardware.both(image).count(hardware.UNTRIED), 2)

    def test_a_guest_has_only_what_it_is_given(self):
        words = [str(word) for word in Guest(Path("."), kernel=Path("k"), initrd=Path("i"), cmdline="c").command()]
        self.assertFalse([word for word in words if "net" in word or "vsock" in word or "virtio" in word])
        self.assertIn("-nodefaults", words)
        vsock = Guest(Path("."), vsock=True)
        self.assertTrue([word for word in vsock.command() if "vhost-user-vsock" in str(word)])
        self.assertEqual(vsock.addresses()["tls"], "vsock+unix://vm.sock:8002")


class Commands(unittest.TestCase):
    def test_without_qemu_nothing_is_tested_and_it_says_so(self):
        for program in (boot.main, imagetest.main):
            said = io.StringIO()
            with mock.patch.dict(os.environ, {"PATH": "/nonexistent"}), contextlib.redirect_stderr(said):
                self.assertEqual(program(["--image", "nowhere"]), outcomes.SKIPPED)
            self.assertIn("SKIPPED", said.getvalue())

    def test_folders_of_somebody_elses_are_not_emptied(self):
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder) / "kept"
            kept.write_text("mine")
            with mock.patch("outcomes.qemu_or_stop", return_value="0"), contextlib.redirect_stderr(io.StringIO()):
                self.assertEqual(imagetest.main(["--image", "nowhere", "--logs", folder]), 1)
            self.assertEqual(kept.read_text(), "mine")

    def test_an_outcome_that_is_wrong_is_counted_as_wrong(self):
        found = outcomes.Outcomes(QUIET)

        def fails():
            raise Failed("not so")

        self.assertTrue(found.run("right", lambda: "fine"))
        self.assertFalse(found.run("wrong", fails))
        self.assertEqual(found.closing(), "1 of 2 outcomes as expected")
        self.assertIn("FAILED wrong", found.table())


if __name__ == "__main__":
    unittest.main()
