"""The guest image's build, piece by piece, without a network: python3 scripts/tests/image_test.py

Each refusal stands beside what is accepted and differs from it in one thing."""

import contextlib
import dataclasses
import hashlib
import http.server
import io
import json
import lzma
import os
import struct
import sys
import tarfile
import tempfile
import threading
import unittest
import uuid
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "lib" / "image"))

import boot  # noqa: E402
import build  # noqa: E402
import crates  # noqa: E402
import deb  # noqa: E402
import disk  # noqa: E402
import elf  # noqa: E402
import entry  # noqa: E402
import hardware  # noqa: E402
import initrd  # noqa: E402
import mirror as mirrors  # noqa: E402
import pins as pinned  # noqa: E402
import programs  # noqa: E402
import repro  # noqa: E402
import toolroot  # noqa: E402
import volume  # noqa: E402
from errors import BLIND, CANNOT, DIFFERENT, INGREDIENT, REFUSED, Say, Stop  # noqa: E402
from ingredients import CRATES, LIBRARY, Ingredients  # noqa: E402

QUIET = Say("test", quiet=True)


def a_deb(members: list[tuple], packed: str = "xz") -> bytes:
    """A package; members are (name, what, value): file bytes, link target, or None for a folder."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode=f"w:{packed}" if packed in ("xz", "gz") else "w") as archive:
        for name, what, value in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if what == "file":
                info.size, info.mode = len(value), 0o644
            else:
                info.type = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}[what]
                info.linkname = value or ""
            archive.addfile(info, io.BytesIO(value) if what == "file" else None)
    out = b"!<arch>\n"
    for name, body in (("debian-binary", b"2.0\n"), (f"data.tar.{packed}", tar.getvalue())):
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode() + body + b"\n" * (len(body) % 2)
    return out


def an_elf(needed=(), interpreter=None, runpath=None, modinfo=None) -> bytes:
    """An ELF file for x86-64 with what is asked for, and nothing to run."""
    strings, offsets = bytearray(b"\0"), []
    for text in [*needed, *([runpath] if runpath else [])]:
        offsets.append(len(strings))
        strings += text.encode() + b"\0"
    names = b"\0.modinfo\0.shstrtab\0"
    info = b"".join(f"{k}={v}".encode() + b"\0" for k, v in (modinfo or {}).items())
    head, count = 64, 2 + (interpreter is not None)
    at = head + 56 * count
    parts, places = bytearray(), {}
    tags = [(elf.DT_NEEDED, o) for o in offsets[:len(needed)]] + ([(elf.DT_RUNPATH, offsets[-1])] if runpath else [])
    for name, body in (("strings", bytes(strings)), ("interp", (interpreter or "").encode() + b"\0"), ("info", info), ("names", names)):
        places[name] = at + len(parts)
        parts += body
    dynamic = b"".join(struct.pack("<qQ", *t) for t in [*tags, (elf.DT_STRTAB, places["strings"]), (elf.DT_NULL, 0)])
    places["dynamic"] = at + len(parts)
    parts += dynamic
    sections = at + len(parts)
    total = sections + 3 * 64
    segments = [(elf.PT_LOAD, 5, 0, 0, 0, total, total, 4096), (elf.PT_DYNAMIC, 6, places["dynamic"], places["dynamic"], 0, len(dynamic), len(dynamic), 8)]
    if interpreter is not None:
        segments.append((elf.PT_INTERP, 4, places["interp"], places["interp"], 0, len(interpreter) + 1, len(interpreter) + 1, 1))
    out = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, head, sections, 0, 64, 56, count, 64, 3, 2)
    out += b"".join(struct.pack("<IIQQQQQQ", *s) for s in segments) + bytes(parts)
    for name, place, size in ((0, 0, 0), (1, places["info"], len(info)), (10, places["names"], len(names))):
        out += struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, place, size, 0, 0, 1, 0)
    return out


def a_pin(name: str, data: bytes, **more) -> pinned.Package:
    values = dict(name=name, version="1.0-1", suite="bookworm", archive="debian", path=f"pool/main/x/{name}_1.0-1_amd64.deb", size=len(data),
                  sha256=hashlib.sha256(data).hexdigest(), licence="MIT", use=("tools",), purpose="a test")
    return pinned.Package(**{**values, **more})


def some_pins(*packages: pinned.Package, rust=None) -> pinned.Pins:
    return pinned.Pins(1767225600, rust or {}, packages, "0" * 64)


class InFolder(unittest.TestCase):
    def setUp(self):
        kept = tempfile.TemporaryDirectory()
        self.addCleanup(kept.cleanup)
        self.folder = Path(kept.name)

    @contextlib.contextmanager
    def stops(self, code: int, *words: str):
        with self.assertRaises(Stop) as caught:
            yield
        self.assertEqual(caught.exception.code, code, str(caught.exception))
        for word in words:
            self.assertIn(word, str(caught.exception))


class Cpio(unittest.TestCase):
    FILES = {"b/c": initrd.Entry(b"hello"), "b": initrd.Entry(), "a": initrd.Entry(b"#!", executable=True)}

    def test_known_answer(self):
        def head(inode, mode, links, size, name):
            fields = (inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, len(name) + 1, 0)
            return "070701" + "".join(f"{f:08X}" for f in fields) + name + "\0"

        expected = (head(1, 0o100755, 1, 2, "a").encode() + b"#!\0\0" + head(2, 0o040755, 2, 0, "b").encode() +
                    head(3, 0o100644, 1, 5, "b/c").encode() + b"\0\0hello\0\0\0" + head(0, 0, 1, 0, "TRAILER!!!").encode())
        expected += b"\0" * (512 - len(expected))
        self.assertEqual(initrd.cpio(self.FILES), expected)

    def test_order_does_not_count_and_content_does(self):
        whole = initrd.cpio(self.FILES)
        self.assertEqual(initrd.cpio(dict(reversed(self.FILES.items()))), whole)
        self.assertNotEqual(initrd.cpio({**self.FILES, "b/c": initrd.Entry(b"hellp")}), whole)
        self.assertEqual(initrd.listing(whole), {"a": (0o100755, 2), "b": (0o040755, 0), "b/c": (0o100644, 5)})


class Debs(InFolder):
    GOOD = [("./lib/x/real.so.1", "file", b"library"), ("./usr/lib/x/link.so", "link", "/lib/x/real.so.1"), ("./lib64", "dir", None),
            ("./lib64/ld.so", "link", "../lib/x/real.so.1"), ("./usr/bin/same", "hard", "./lib/x/real.so.1")]

    def test_extracts_with_merged_usr_and_links_that_stay_inside(self):
        for packed in ("xz", "gz"):
            root = self.folder / packed
            written = deb.extract(a_deb(self.GOOD, packed), root)
            self.assertEqual(written, ["usr/lib/x/real.so.1", "usr/lib/x/link.so", "usr/lib64/ld.so", "usr/bin/same"])
            self.assertEqual(os.readlink(root / "usr/lib/x/link.so"), "real.so.1")
            for name in written:
                self.assertEqual((root / name).read_bytes(), b"library")
        self.assertEqual(deb.file(a_deb(self.GOOD), "usr/lib/x/real.so.1"), b"library")

    def test_what_cannot_be_read_is_refused(self):
        good = a_deb(self.GOOD)
        deb.extract(good, self.folder / "good")
        hostile = {
            "leaves the root": a_deb([("../../etc/x", "file", b"")]),
            "neither file nor folder": a_deb([("./dev/x", "device", None)]),
            "leaves the root: ../../..": a_deb([("./a", "link", "../../../etc/passwd")]),
            "only xz, gz": a_deb(self.GOOD, "zst"),
            "not an ar archive": b"PK" + good,
            "ends inside": good[:-7],
            "no ar header": good + b"x",
            "has no file": good,
        }
        for words, data in hostile.items():
            with self.subTest(words), self.assertRaises(deb.BadDeb) as caught:
                deb.extract(data, self.folder / "bad")
                deb.file(data, "usr/nothing")
            self.assertIn(words, str(caught.exception))
        self.assertFalse(Path("/etc/x").exists())


class Served(http.server.BaseHTTPRequestHandler):
    """Answers from the server's `files`: bytes, or (bytes, length claimed)."""

    def do_GET(self):
        found = self.server.files.get(self.path)
        self.server.asked.append(self.path)
        if found is None:
            return self.send_error(404)
        body, length = found if isinstance(found, tuple) else (found, len(found))
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def stanza(package: pinned.Package, **more) -> str:
    fields = {"Package": package.name, "Version": package.version, "Filename": package.path, "Size": package.size, "SHA256": package.sha256, **more}
    return "".join(f"{k}: {v}\n" for k, v in fields.items()) + "\n"


class Mirrors(InFolder):
    INDEX = "/debian/dists/bookworm/main/binary-amd64/Packages.xz"

    def setUp(self):
        super().setUp()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Served)
        self.server.files, self.server.asked = {}, []
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.data = os.urandom(5000)
        self.pin = a_pin("thing", self.data)
        self.newer = dataclasses.replace(self.pin, version="1.0-2", path="pool/main/x/thing_1.0-2_amd64.deb", sha256="ab" * 32)
        self.serve(self.newer)
        self.base = f"http://127.0.0.1:{self.server.server_port}/debian"
        self.cache = self.folder / "cache"
        patch = mock.patch.object(mirrors.time, "sleep")
        patch.start()
        self.addCleanup(patch.stop)

    def serve(self, package, text=None, **more):
        self.server.files[self.INDEX] = lzma.compress((text or stanza(package, **more)).encode())

    def ingredients(self, given=None, offline=False):
        return Ingredients(some_pins(self.pin), self.cache, QUIET, mirrors.Mirror(QUIET, self.base, self.base), given, offline)

    def test_what_is_pinned_is_fetched_once(self):
        self.server.files[f"/debian/{self.pin.path}"] = self.data
        self.assertEqual(self.ingredients().package(self.pin), self.data)
        self.assertEqual(self.ingredients().package(self.pin), self.data)
        self.assertEqual(self.server.asked, [f"/debian/{self.pin.path}"])
        # What was kept and is damaged is fetched anew, not used.
        (self.cache / self.pin.file).write_bytes(b"damaged")
        self.assertEqual(self.ingredients().package(self.pin), self.data)

    def test_a_mirror_that_moved_on(self):
        moved = {
            "404": None,
            "other bytes than those pinned: 5000 bytes": self.data[:-1] + bytes([self.data[-1] ^ 1]),
            "more than 5000 bytes": self.data + b"x",
            "4999 bytes": self.data[:-1],
        }
        for words, body in moved.items():
            if body is not None:
                self.server.files[f"/debian/{self.pin.path}"] = body
            with self.subTest(words), self.stops(INGREDIENT, words, "thing", "pinned     1.0-1", "thing 1.0-2", "--update-pin thing", "--ingredients"):
                self.ingredients().package(self.pin)
            self.assertFalse(self.cache.exists() and list(self.cache.iterdir()))
            # The newer package lies on the mirror, and nobody asked for it.
            self.assertNotIn(f"/debian/{self.newer.path}", self.server.asked)

    def test_a_transfer_that_ends_early_is_trouble_on_the_way(self):
        self.server.files[f"/debian/{self.pin.path}"] = (self.data[:100], len(self.data))
        with self.stops(INGREDIENT, "cannot be read", "IncompleteRead" if sys.version_info < (3, 10) else "100"):
            self.ingredients().package(self.pin)
        self.assertEqual(self.server.asked.count(f"/debian/{self.pin.path}"), mirrors.TRIES)
        self.assertFalse(self.cache.exists())

    def test_a_folder_is_enough_and_is_checked(self):
        given = self.folder / "given"
        given.mkdir()
        (given / self.pin.file).write_bytes(self.data)
        complete = self.ingredients(given, offline=True)
        complete.all_packages([self.pin])
        self.assertEqual(complete.package(self.pin), self.data)
        self.assertEqual(self.server.asked, [])

        other = a_pin("second", b"other")
        with self.stops(INGREDIENT, "1 of 2", other.file, other.sha256, "--ingredients"):
            complete.all_packages([self.pin, other])
        with self.stops(INGREDIENT, other.file, "--offline"):
            complete.package(other)
        (given / self.pin.file).write_bytes(self.data[::-1])
        with self.stops(INGREDIENT, "is not what is pinned", self.pin.sha256):
            complete.package(self.pin)
        self.assertEqual(self.server.asked, [])

    def test_the_library_offline(self):
        given = self.folder / "given"
        given.mkdir()
        (given / LIBRARY).write_bytes(b"library")
        offline = self.ingredients(given, offline=True)
        with mock.patch("ingredients.onnxruntime", return_value=hashlib.sha256(b"library").hexdigest()):
            self.assertEqual(offline.library(), given / LIBRARY)
        with self.stops(INGREDIENT, "is not what is pinned"):
            offline.library()

    def test_pins_change_on_request_alone(self):
        path = self.folder / "pins.json"
        old = {**dataclasses.asdict(self.pin), "use": ["tools"], "follow": "thing-latest"}
        path.write_text(json.dumps({"source_date_epoch": 1, "rust": {}, "packages": [old]}))
        pins = pinned.load(path)
        self.serve(None, stanza(dataclasses.replace(self.newer, name="thing-2")) + "Package: thing-latest\nDepends: thing-2 (= 1.0-2)\n")
        mirror = mirrors.Mirror(QUIET, self.base, self.base)
        with mock.patch.object(pinned.write, "__defaults__", (path,)), mock.patch.object(pinned, "PINS", ROOT / "pins.json"), \
                contextlib.redirect_stderr(io.StringIO()) as said:
            # Nothing signed the index.
            self.server.files["/debian/dists/bookworm/InRelease"] = b"SHA256:\n " + b"0" * 64 + b" 1 main/binary-amd64/Packages.xz\n"
            before = path.read_bytes()
            with self.assertRaises(Stop):
                build.update_pins(["thing"], pins, mirror, verify=True)
            self.assertEqual(path.read_bytes(), before)
            found = build.update_pins(["thing-latest"], pins, mirror, verify=False)
        self.assertEqual(found["pins"][0]["new_name"], "thing-2")
        self.assertIn("old  1.0-1", said.getvalue())
        self.assertIn("new  1.0-2", said.getvalue())
        now = pinned.load(path).packages[0]
        self.assertEqual((now.name, now.version, now.sha256, now.follow), ("thing-2", "1.0-2", "ab" * 32, "thing-latest"))

    def test_a_signed_index_is_that_of_the_suite_and_of_today(self):
        self.serve(None, stanza(self.newer))
        digest = hashlib.sha256(self.server.files["/debian/dists/bookworm/main/binary-amd64/Packages.xz"]).hexdigest()
        good = (f"Suite: oldstable\nCodename: bookworm\nValid-Until: Mon, 01 Jan 2990 00:00:00 UTC\nSHA256:\n {'0' * 64} 1 main/binary-i386/Packages.xz\n"
                f" {digest} 1 main/binary-amd64/Packages.xz\n")
        self.server.files["/debian/dists/bookworm/InRelease"] = b"signed"

        def asked(signed):
            with mock.patch.object(mirrors, "verified", return_value=signed) as verified:
                found = mirrors.Mirror(QUIET, self.base, self.base).current(self.pin, verify=True)
            verified.assert_called_once_with(b"signed")
            return found

        self.assertEqual(asked(good).version, "1.0-2")
        self.assertEqual(asked(good.replace("Valid-Until", "Other")).version, "1.0-2")
        for words, bad in (("is not the index that the signed", good.replace(digest, "1" * 64)), ("not of bookworm", good.replace("Codename: bookworm", "Codename: trixie")),
                           ("was valid until", good.replace("2990", "2020"))):
            with self.subTest(words), self.stops(INGREDIENT, words):
                asked(bad)

    def test_where_apt_would_look(self):
        def found(*lines):
            return mirrors.mirrors_of("".join(f"Packages|{line}\n" for line in lines))

        both = {"debian": "http://a/debian", "debian-security": "http://b/debian-security"}
        self.assertEqual(found("Debian|trixie|main|http://a/debian/", "Debian|trixie-security|main|http://b/debian-security/",
                               "Debian|sid|main|http://c/debian/"), both)
        self.assertEqual(found("$(ORIGIN)|bookworm|main|https://x/apt/", "$(ORIGIN)|trixie|main|http://a/debian/",
                               "$(ORIGIN)|trixie-security|main|http://b/debian-security/"), both)
        self.assertEqual(found("Other|trixie|main|http://a/debian/", "Debian|trixie|contrib|http://a/debian/", "Debian|trixie|main|cdrom:x/debian/"), {})
        with mock.patch.object(mirrors, "apt_mirrors", return_value={}):
            for archive, option in (("debian", "--mirror"), ("debian-security", "--security-mirror")):
                with self.stops(CANNOT, option):
                    mirrors.Mirror(QUIET).base(archive)
            self.assertEqual(mirrors.Mirror(QUIET, "http://a/debian/").base("debian"), "http://a/debian")

    def test_an_archive_is_complete(self):
        self.server.files[f"/debian/{self.pin.path}"] = self.data
        given, one = self.folder / "given", a_crate("one")
        (given / CRATES).mkdir(parents=True)
        (given / CRATES / "one-1.0.0.crate").write_bytes(one)
        (given / LIBRARY).write_bytes(b"library")
        locked = [crates.Crate("one", "1.0.0", hashlib.sha256(one).hexdigest())]
        with mock.patch("ingredients.onnxruntime", return_value=hashlib.sha256(b"library").hexdigest()), mock.patch("crates.locked", return_value=locked):
            self.ingredients(given).archive(self.folder / "archive", Path("/nonexistent/cargo"))
            self.assertEqual(sorted(p.name for p in (self.folder / "archive").iterdir()), [CRATES, LIBRARY, self.pin.file])
            self.assertEqual((self.folder / "archive" / CRATES / "one-1.0.0.crate").read_bytes(), one)
            self.server.files.clear()
            self.ingredients(self.folder / "archive", offline=True).all_packages([self.pin])
            with self.stops(CANNOT, "is not empty"):
                self.ingredients(given).archive(self.folder / "archive", Path("/nonexistent/cargo"))
            (given / CRATES / "one-1.0.0.crate").write_bytes(a_crate("one", b"other"))
            with self.stops(INGREDIENT, "not what Cargo.lock names"):
                self.ingredients(given).archive(self.folder / "another", Path("/nonexistent/cargo"))


def a_crate(name, source=b"pub fn x() {}", kind=None, place=None):
    """A crate's archive with one file in it, or with one entry of another kind or place."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo(place or f"{name}-1.0.0/src/lib.rs")
        member.size, member.type, member.linkname = (0 if kind else len(source)), kind or tarfile.REGTYPE, "x" if kind else ""
        archive.addfile(member, io.BytesIO(source))
    return packed.getvalue()


class Crates(InFolder):
    def given(self, data, locked=None):
        (self.folder / "one-1.0.0.crate").write_bytes(data)
        return [crates.Crate("one", "1.0.0", hashlib.sha256(data if locked is None else locked).hexdigest())]

    def test_what_is_built_is_what_the_lock_file_names(self):
        good, target = a_crate("one"), self.folder / "unpacked"
        for _ in range(2):
            crates.unpack(self.given(good), [self.folder / "not there", self.folder], target)
            self.assertEqual((target / "one-1.0.0" / "src" / "lib.rs").read_bytes(), b"pub fn x() {}")
            self.assertEqual(json.loads((target / "one-1.0.0" / ".cargo-checksum.json").read_text()), {"files": {}, "package": hashlib.sha256(good).hexdigest()})
            # Whatever somebody did to what an earlier build unpacked.
            (target / "one-1.0.0" / "src" / "lib.rs").write_bytes(b"pub fn evil() {}")
            (target / "one-1.0.0" / "build.rs").write_bytes(b"fn main() {}")
        crates.unpack(self.given(good), [self.folder], target)
        self.assertFalse((target / "one-1.0.0" / "build.rs").exists())
        with self.stops(INGREDIENT, "not what Cargo.lock names"):
            crates.unpack(self.given(a_crate("one", b"evil"), good), [self.folder], target)
        (self.folder / "one-1.0.0.crate").unlink()
        with self.stops(INGREDIENT, "one-1.0.0.crate (SHA-256"):
            crates.unpack(self.given(good)[:0] + [crates.Crate("one", "1.0.0", "0" * 64)], [self.folder / "not there"], target)

    def test_hostile_archives(self):
        target = self.folder / "unpacked"
        crates.unpack(self.given(a_crate("one")), [self.folder], target)
        for hostile in (a_crate("one", kind=tarfile.SYMTYPE), a_crate("one", kind=tarfile.LNKTYPE), a_crate("one", kind=tarfile.FIFOTYPE),
                        a_crate("one", place="one-1.0.0/../../x"), a_crate("one", place="/x"), a_crate("one", place="two-1.0.0/x")):
            with self.stops(INGREDIENT, "one-1.0.0.crate holds"):
                crates.unpack(self.given(hostile), [self.folder], target)

    def test_the_lock_file(self):
        found = crates.locked()
        self.assertGreater(len(found), 100)
        self.assertIn("ring", [c.name for c in found])
        good = '[[package]]\nname = "one"\nversion = "1.0.0"\nsource = "registry+https://github.com/rust-lang/crates.io-index"\nchecksum = "%s"\n' % ("ab" * 32)
        lock = self.folder / "Cargo.lock"
        lock.write_text(good + '[[package]]\nname = "own"\nversion = "1.0.0"\n')
        self.assertEqual([c.file for c in crates.locked(lock)], ["one-1.0.0.crate"])
        for bad in (good.replace("registry+https://github.com/rust-lang/crates.io-index", "git+https://example.test/one"), good.replace("checksum", "other"),
                    good.replace('"one"', '"../one"'), good.replace("abab", "xx", 1)):
            lock.write_text(bad)
            with self.stops(CANNOT, "Cargo.lock"):
                crates.locked(lock)


class Initrd(unittest.TestCase):
    def setUp(self):
        names = ["init", "usr/bin/enclave", initrd.LOADER]
        self.entries = {n: initrd.Entry(b"x", executable=True) for n in names}
        for name in [initrd.ONNXRUNTIME, "usr/lib/modules/tsm.ko", f"{toolroot.LIBRARIES}/libc.so.6", "models/m/1/model.onnx",
                     *(f"etc/touchstone/{s}" for s in initrd.SETTINGS)]:
            self.entries[name] = initrd.Entry(b"x")
        self.entries |= {n: initrd.Entry() for n in initrd.EMPTY}

    def finished(self, **more):
        return initrd.cpio(initrd.with_folders({**self.entries, **more}))

    def test_only_what_is_expected_is_accepted(self):
        initrd.check(self.finished())
        unexpected = {
            "bin/sh": initrd.Entry(b"x", executable=True), "usr/bin/sh": initrd.Entry(b"x", executable=True), "usr/bin/dpkg": initrd.Entry(b"x"),
            "etc/shadow": initrd.Entry(b"x"), f"{toolroot.LIBRARIES}/libssl.so.3": initrd.Entry(b"x"), "usr/lib/modules/sub/x.ko": initrd.Entry(b"x"),
            "tmp": initrd.Entry(), "usr/lib/modules/tsm.ko": initrd.Entry(b"x", executable=True), "models/run": initrd.Entry(b"x", executable=True),
            "init2": initrd.Entry(b"x"), "etc/touchstone/more.toml": initrd.Entry(b"x"),
        }
        for name, entry in unexpected.items():
            with self.subTest(name), self.assertRaises(Stop) as caught:
                initrd.check(self.finished(**{name: entry}))
            self.assertEqual(caught.exception.code, REFUSED)
            self.assertIn(f"{name} (mode", str(caught.exception))

    def test_what_must_be_there(self):
        for name in ("init", "usr/bin/enclave", initrd.ONNXRUNTIME, initrd.LOADER, "etc/touchstone/init.toml"):
            entries = {k: v for k, v in self.entries.items() if k != name}
            with self.subTest(name), self.assertRaises(Stop) as caught:
                initrd.check(initrd.cpio(initrd.with_folders(entries)))
            self.assertIn(f"{name} is missing", str(caught.exception))

    def test_special_bits_and_second_entries(self):
        whole = self.finished()
        setuid = whole.replace(b"%08X" % 0o100755, b"%08X" % 0o104755, 1)
        trailer = initrd.cpio({})
        twice = whole[:whole.rindex(b"070701")] + whole[:whole.rindex(b"070701")] + trailer
        for words, archive in (("init (mode 104755)", setuid), ("twice", twice)):
            with self.subTest(words), self.assertRaises(Stop) as caught:
                initrd.check(archive)
            self.assertIn(words, str(caught.exception))


class Modules(unittest.TestCase):
    KERNEL = {
        "usr/lib/modules/6/kernel/a/tsm.ko.xz": lzma.compress(an_elf(modinfo={"depends": "configfs", "license": "GPL"})),
        "usr/lib/modules/6/kernel/b/configfs.ko.xz": lzma.compress(an_elf(modinfo={"depends": ""})),
        "usr/lib/modules/6/kernel/c/dm-verity.ko": an_elf(modinfo={"depends": "tsm,dm-mod"}),
        "usr/lib/modules/6/kernel/c/dm-mod.ko": an_elf(modinfo={"depends": ""}),
    }
    GOOD = '[modules]\nalways = ["configfs.ko", "tsm.ko"] # in order\nplatform = []\nvolume = [\n "dm-mod.ko",\n "dm-verity.ko"]\n[enclave]\nuid = 1\n'

    def test_named_modules_unpacked(self):
        found = initrd.modules(self.GOOD, self.KERNEL)
        self.assertEqual(sorted(found), [f"usr/lib/modules/{n}.ko" for n in ("configfs", "dm-mod", "dm-verity", "tsm")])
        self.assertEqual(found["usr/lib/modules/tsm.ko"].body[:4], b"\x7fELF")

    def test_each_needs_what_it_names_before_it(self):
        wrong = {
            "tsm.ko in `always` needs configfs": self.GOOD.replace('"configfs.ko", "tsm.ko"', '"tsm.ko", "configfs.ko"'),
            "needs dm_mod": self.GOOD.replace(' "dm-mod.ko",\n', ""),
            "does not have": self.GOOD.replace('"tsm.ko"', '"tsm.ko", "snd.ko"'),
            "more than lists": self.GOOD.replace("platform", "other"),
            "something else": self.GOOD.replace("platform = []", "platform = 1"),
            "has no [modules]": self.GOOD.replace("[modules]", "[module]"),
        }
        for words, text in wrong.items():
            with self.subTest(words), self.assertRaises(Stop) as caught:
                initrd.modules(text, self.KERNEL)
            self.assertEqual(caught.exception.code, REFUSED)
            self.assertIn(words, str(caught.exception))


class Libraries(InFolder):
    def setUp(self):
        super().setUp()
        root = self.folder / toolroot.LIBRARIES
        root.mkdir(parents=True)
        self.owners = {}
        for name, needed, owner in (("libc.so.6", ["ld-linux-x86-64.so.2"], "libc6"), ("ld-linux-x86-64.so.2", [], "libc6"),
                                    ("libstdc++.so.6.0.30", ["libc.so.6"], "libstdc++6"), ("libz.so.1", [], "zlib1g")):
            (root / name).write_bytes(an_elf(needed))
            self.owners[f"{toolroot.LIBRARIES}/{name}"] = owner
        (root / "libstdc++.so.6").symlink_to("libstdc++.so.6.0.30")
        self.tools = toolroot.Toolroot(self.folder, self.owners)

    def found(self, *needed, **more):
        return initrd.libraries({"usr/bin/enclave": an_elf(needed, **more)}, self.tools, {"libc6", "libstdc++6"})

    def test_all_that_is_needed_and_nothing_else(self):
        found = self.found("libstdc++.so.6", interpreter="/lib64/ld-linux-x86-64.so.2")
        self.assertEqual(sorted(found), [initrd.LOADER, f"{toolroot.LIBRARIES}/libc.so.6", f"{toolroot.LIBRARIES}/libstdc++.so.6"])
        self.assertTrue(found[initrd.LOADER].executable)

    def test_what_is_not_of_the_pinned_packages(self):
        self.found("libc.so.6", runpath="$ORIGIN")
        for words, needed, more in (("needs libssl.so.3, which is in none", ["libssl.so.3"], {}), ("of the package zlib1g", ["libz.so.1"], {}),
                                    ("search path", ["libc.so.6"], {"runpath": "/tmp"}), ("wants the loader", [], {"interpreter": "/lib/ld-musl.so"})):
            with self.subTest(words), self.stops(REFUSED, words):
                self.found(*needed, **more)
        with self.stops(REFUSED, "not a little-endian ELF"):
            initrd.libraries({"init": b"#!/bin/sh\n"}, self.tools, {"libc6"})


class Toolchain(InFolder):
    def setUp(self):
        super().setUp()
        self.pin = {"release": "1.95.0", "host": "x86_64-unknown-linux-gnu", "rustc_commit": "a" * 40, "cargo_commit": "b" * 40, "files_sha256": ""}
        self.make("a" * 40, "b" * 40)
        self.pin["files_sha256"] = self.rust().files_sha256()

    def make(self, rustc: str, cargo: str):
        for name, commit in (("rustc", rustc), ("cargo", cargo)):
            program = self.folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f"#!/bin/sh\n[ \"$1\" = --print ] && echo '{self.folder}' || "
                               f"printf 'commit-hash: {commit}\\nrelease: 1.9\\nhost: x86_64-unknown-linux-gnu\\n'\n")
            program.chmod(0o755)
        rustlib = self.folder / "lib" / "rustlib"
        rustlib.mkdir(parents=True, exist_ok=True)
        (self.folder / "lib" / "std.rlib").write_bytes(b"standard library")
        for part, names in (("cargo", "file:bin/cargo"), ("rustc", "file:bin/rustc\nfile:share/doc/x"), ("rust-std", "file:lib/std.rlib")):
            (rustlib / f"manifest-{part}-x86_64-unknown-linux-gnu").write_text(names + "\n")

    def rust(self):
        return toolroot.Rust(some_pins(rust=self.pin), str(self.folder / "bin" / "rustc"))

    def test_another_compiler_is_refused_and_it_says_what_to_install(self):
        self.rust().check()
        for rustc, cargo in (("c" * 40, "b" * 40), ("a" * 40, "c" * 40)):
            self.make(rustc, cargo)
            with self.stops(CANNOT, "c" * 40, "rustup toolchain install 1.95.0"):
                self.rust().check()
        self.make("a" * 40, "b" * 40)
        self.rust().check()

    def test_the_same_version_of_somebody_else_is_refused(self):
        (self.folder / "lib" / "std.rlib").write_bytes(b"another library")
        with self.stops(CANNOT, "are not those that the Rust project gave out"):
            self.rust().check()
        (self.folder / "lib" / "std.rlib").unlink()
        with self.stops(CANNOT, "is not complete"):
            self.rust().check()
        (self.folder / "lib" / "rustlib" / "manifest-rustc-x86_64-unknown-linux-gnu").unlink()
        with self.stops(CANNOT, "manifest-rustc"):
            self.rust().check()

    def test_none_at_all(self):
        with mock.patch.dict(os.environ, {"PATH": "/nonexistent", "CARGO_HOME": "/nonexistent"}), self.stops(CANNOT, "rustc is missing"):
            toolroot.Rust(some_pins(rust=self.pin))


class Surroundings(InFolder):
    def builder(self):
        with mock.patch.dict(os.environ, {"CARGO_HOME": str(self.folder / "home")}):
            return programs.Builder(some_pins(rust={"host": "x"}), mock.Mock(sysroot=self.folder / "rust"), mock.Mock(root=self.folder / "tools", bin=self.folder / "bin"),
                                    mock.Mock(), self.folder / "below it" / "work", QUIET)

    def test_configuration_that_would_show_is_refused(self):
        builder = self.builder()
        self.assertEqual(builder.start, Path("/"))
        builder.start = self.folder
        # Of the caller's, and on the way to the build: neither is read.
        for folder in (self.folder / "home", builder.work.parent / ".cargo"):
            folder.mkdir(parents=True)
            (folder / "config.toml").write_text("include = ['x.toml']")
        for place in (self.folder / ".cargo" / "config", self.folder / ".cargo" / "config.toml", builder.cargo_home / "config.toml"):
            builder.check_configuration()
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("[term]")
            with self.subTest(place), self.stops(CANNOT, str(place)):
                builder.check_configuration()
            place.unlink()

    def test_cargo_is_started_where_nothing_is_found(self):
        builder = self.builder()
        builder.work.mkdir(parents=True)
        with mock.patch("programs.subprocess.run", return_value=mock.Mock(returncode=0)) as run:
            builder.cargo("enclave")
        self.assertEqual(run.call_args.kwargs["cwd"], Path("/"))
        self.assertEqual(run.call_args.kwargs["env"]["CARGO_HOME"], str(builder.work / "home"))
        self.assertIn(f'source.unpacked.directory="{builder.crates}"', run.call_args.args[0])

    def test_what_an_earlier_build_made_of_this_source_is_not_used_again(self):
        builder = self.builder()
        kept = builder.target / "release" / ".fingerprint"
        for name in ("enclave-0123", "touchstone-formats-4567", "ring-89ab"):
            (kept / name).mkdir(parents=True)
        for program in ("touchstone-init", "enclave"):
            (builder.target / "release" / program).write_bytes(b"")
        with mock.patch.object(builder, "cargo"):
            self.assertEqual(set(builder.programs()), {"init", "usr/bin/enclave"})
        self.assertEqual([path.name for path in kept.iterdir()], ["ring-89ab"])

    def test_the_callers_environment_does_not_come_in(self):
        builder = self.builder()
        builder.work.mkdir(parents=True)
        with mock.patch.dict(os.environ, {"RUSTFLAGS": "-Cx", "CFLAGS": "-O0", "LD_PRELOAD": "/x", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "7"}):
            env = builder.environment()
        self.assertEqual(set(env) & {"RUSTFLAGS", "LD_PRELOAD"}, set())
        self.assertEqual((env["TZ"], env["SOURCE_DATE_EPOCH"], env["CARGO_PROFILE_RELEASE_STRIP"]), ("UTC", "1767225600", "symbols"))
        self.assertIn(f"-ffile-prefix-map={self.folder / 'tools'}=/toolroot", Path(env["CC"]).read_text())
        self.assertIn(f"--remap-path-prefix={builder.crates}=/crates", env["CARGO_ENCODED_RUSTFLAGS"].split("\x1f"))

    def test_a_network_that_the_guest_would_refuse(self):
        for good in ("dhcp", "10.0.2.15/24,10.0.2.2", "10.128.0.7/32,10.128.0.1"):
            self.assertEqual(build.arguments(["--net", good]).net, good)
        for bad in ("", "DHCP", "10.0.2.15", "10.0.2.15/24", "10.0.2.15/0,10.0.2.2", "10.0.2.15/33,10.0.2.2", "10.0.2.15/024,10.0.2.2", "999.0.2.15/24,10.0.2.2",
                    "10.0.2/24,10.0.2.2", "10.0.2.15/24,10.0.2.15", "127.0.0.1/8,10.0.2.2", "0.0.0.0/24,10.0.2.2", "224.0.0.1/24,10.0.2.2",
                    "10.0.2.15/24,255.255.255.255", "10.0.2.15/24,10.0.2.2,1460", "dhcp "):
            with self.subTest(bad), contextlib.redirect_stderr(io.StringIO()) as said, self.assertRaises(SystemExit) as ended:
                build.arguments(["--net", bad])
            self.assertEqual(ended.exception.code, CANNOT)
            self.assertIn("ADDRESS/PREFIX,GATEWAY", said.getvalue())

    def test_folders_of_others_are_left_alone(self):
        build.ours(self.folder / "new", "image.json", "--out")
        build.ours(self.folder, "image.json", "--out")
        (self.folder / "file").write_text("precious")
        with self.stops(CANNOT, "--out", "is not empty"):
            build.ours(self.folder, "image.json", "--out")
        (self.folder / "image.json").write_text("{}")
        build.ours(self.folder, "image.json", "--out")


class Volumes(InFolder):
    def test_the_hash_tree_is_veritysetups(self):
        # `veritysetup format --no-superblock --hash-offset=BLOCKS*4096 --salt=SHA-256("salt")` of cryptsetup 2.6.1 says so.
        known = {1: "cafe3451dea3a224f75a5b0f210e52b34ad8c548dd4ed9093297341fa636b960",
                 2: "99cdca73f561848b32e3440d64cbf81a346b46fe0080fc5f48ecefeb20c238c7",
                 128: "afd9e39ffe86f505fbc3af3a599b272697f2dd60cf8080f6eda9e3708877d7a0",
                 129: "972c2a80ce97015651d8fb54cdc73ff9cbd9487deae80199470b06642e5450c3"}
        levels = {1: 0, 2: 1, 128: 1, 129: 3}
        for blocks, root in known.items():
            path = self.folder / "data"
            path.write_bytes(b"".join(hashlib.sha256(b"%d" % i).digest() * 128 for i in range(blocks)))
            tree, found, count = volume.hash_tree(path, hashlib.sha256(b"salt").digest())
            self.assertEqual((found.hex(), count, len(tree)), (root, blocks, 4096 * levels[blocks]))
        self.assertEqual(volume.Volume("ab", "cd", 3).word, "touchstone.models=ab,cd,3")
        path.write_bytes(b"x" * 5000)
        with self.stops(REFUSED, "blocks"):
            volume.hash_tree(path, b"")

    def test_salt_is_of_names_and_contents(self):
        def digest(files):
            folder = self.folder / str(len(list(self.folder.iterdir())))
            for name, body in files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(body)
            return volume.content_digest(folder)

        one = digest([("a/x", b"1"), ("b/y", b"2")])
        self.assertEqual(digest([("b/y", b"2"), ("a/x", b"1")]), one)
        for other in ([("a/x", b"1"), ("b/y", b"3")], [("a/x", b"1"), ("b/z", b"2")], [("a/x", b"1")]):
            self.assertNotEqual(digest(other), one)

    def test_links_are_refused(self):
        models = self.folder / "models"
        (models / "m").mkdir(parents=True)
        (models / "m" / "file").write_bytes(b"x")
        volume.copy_models(models, self.folder / "copy")
        self.assertEqual(list(initrd.folder(models, "models")), ["models/m", "models/m/file"])
        (models / "m" / "link").symlink_to("/etc/passwd")
        with self.stops(REFUSED, "neither file nor folder"):
            volume.copy_models(models, self.folder / "copy")
        with self.stops(REFUSED, "neither file nor folder"):
            initrd.folder(models, "models")


def a_stub(room: int = 1024) -> bytes:
    """A PE32+ program with one section and room for more headers."""
    out = bytearray(room + 512)
    struct.pack_into("<2s58xI", out, 0, b"MZ", 64)
    struct.pack_into("<4sHHIIIHH", out, 64, b"PE\0\0", 0x8664, 1, 0, 0, 0, 240, 0x22E)
    struct.pack_into("<H", out, 88, 0x20B)
    struct.pack_into("<II", out, 88 + 32, 4096, 512)
    struct.pack_into("<II", out, 88 + 56, 8192, room)
    struct.pack_into("<8sIIII", out, 88 + 240, b".text", 512, 4096, 512, room)
    out[room:] = b"\xcc" * 512
    return bytes(out)


class Disks(InFolder):
    def test_sections_of_a_unified_kernel_image(self):
        made = disk.uki(a_stub(), b"kernel" * 1000, b"initrd", "panic=-1", "6.12")
        self.assertEqual(made, disk.uki(a_stub(), b"kernel" * 1000, b"initrd", "panic=-1", "6.12"))
        count, end, found = struct.unpack_from("<H", made, 70)[0], 0, {}
        for i in range(count):
            name, size, address, raw, at = struct.unpack_from("<8sIIII", made, 88 + 240 + 40 * i)
            self.assertTrue(address % 4096 == 0 and address >= end and at % 512 == 0 and raw % 512 == 0)
            end = address + size
            found[name.rstrip(b"\0").decode()] = made[at:at + size]
        self.assertEqual((found[".cmdline"], found[".linux"], found[".initrd"], found[".uname"]), (b"panic=-1", b"kernel" * 1000, b"initrd", b"6.12"))
        self.assertEqual(found[".text"], b"\xcc" * 512)
        self.assertGreaterEqual(struct.unpack_from("<I", made, 88 + 56)[0], end)

    def test_stubs_that_do_not_fit(self):
        for words, stub in (("no room", a_stub(512)), ("no PE32+", b"ZM" + a_stub()[2:])):
            with self.subTest(words), self.stops(REFUSED, words):
                disk.uki(stub, b"k", b"i", "c", "r")

    def test_partitions(self):
        one, two, path = self.folder / "one", self.folder / "two", self.folder / "disk"
        one.write_bytes(b"1" * 1000)
        two.write_bytes(b"2" * 3_000_000)
        disk.disk(path, [("touchstone-boot", disk.ESP, one), (disk.MODELS, disk.DATA, two)])
        data = path.read_bytes()
        self.assertEqual((len(data) % disk.MIB, data[510:512], data[450]), (0, b"\x55\xaa", 0xEE))
        for at, table in ((1, 2), (len(data) // 512 - 1, len(data) // 512 - 33)):
            header = bytearray(data[at * 512:at * 512 + 92])
            self.assertEqual(header[:8], b"EFI PART")
            entries = data[table * 512:table * 512 + 128 * 128]
            self.assertEqual(struct.unpack_from("<I", header, 88)[0], disk.zlib.crc32(entries))
            stated, header[16:20] = struct.unpack_from("<I", header, 16)[0], b"\0" * 4
            self.assertEqual(stated, disk.zlib.crc32(bytes(header)))
            kind, _, first, last, _, name = struct.unpack_from("<16s16sQQQ72s", entries, 128)
            self.assertEqual((uuid.UUID(bytes_le=kind), name.decode("utf-16-le").rstrip("\0")), (disk.DATA, "touchstone-models"))
            self.assertEqual(data[first * 512:first * 512 + 3_000_000], two.read_bytes())
            self.assertGreaterEqual((last + 1) * 512, first * 512 + 3_000_000)
        two.write_bytes(b"3" * 3_000_000)
        disk.disk(self.folder / "other", [("touchstone-boot", disk.ESP, one), (disk.MODELS, disk.DATA, two)])
        self.assertNotEqual((self.folder / "other").read_bytes()[512:1024], data[512:1024])


class Repeating(InFolder):
    def outputs(self, name: str, **files: bytes) -> Path:
        folder = self.folder / name
        folder.mkdir()
        for file, body in files.items():
            (folder / file.replace("_", ".")).write_bytes(body)
        return folder

    def test_every_file_is_compared_and_the_difference_named(self):
        archive = initrd.cpio({"init": initrd.Entry(b"1"), "usr": initrd.Entry()})
        changed = initrd.cpio({"init": initrd.Entry(b"2"), "usr": initrd.Entry()})
        one = self.outputs("one", initrd_img=archive, cmdline=b"panic=-1")
        self.assertEqual(repro.compare(one, self.outputs("same", initrd_img=archive, cmdline=b"panic=-1")), [])
        self.assertEqual(repro.compare(one, self.outputs("inside", initrd_img=changed, cmdline=b"panic=-1")), ["initrd.img: init inside"])
        self.assertIn("the first that differs at 0x6", repro.compare(one, self.outputs("text", initrd_img=archive, cmdline=b"panic=10"))[0])
        self.assertEqual(repro.compare(one, self.outputs("less", initrd_img=archive)), ["cmdline: only one build has it"])

    def test_exit_codes(self):
        equal = {"equal": True, "files": [], "different": [], "seconds": {}, "control": {"kind": "epoch", "different": ["disk.raw: x"]}}
        cases = ((0, equal), (DIFFERENT, {**equal, "different": ["vmlinuz: x"], "control": None}),
                 (BLIND, {**equal, "control": {"kind": "epoch", "different": []}}))
        for code, found in cases:
            with mock.patch.object(repro.Check, "run", return_value=found), contextlib.redirect_stdout(io.StringIO()) as said:
                self.assertEqual(repro.main(["--json"]), code)
            self.assertEqual(json.loads(said.getvalue())["exit"], code)


class Hardware(InFolder):
    def test_the_guests_ports_are_this_machines_alone(self):
        said = hardware.both(self.folder, net=True)
        self.assertEqual(said.count("hostfwd=tcp:127.0.0.1:"), said.count("hostfwd="))
        self.assertEqual(said.count("hostfwd="), 6)
        self.assertEqual(hardware.both(self.folder).count("hostfwd="), 0)

    def test_without_an_image_no_command_line_is_printed(self):
        for code in (CANNOT, 0):
            with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(io.StringIO()):
                self.assertEqual(boot.main(["--hardware", "snp", "--image", str(self.folder)]), code)
            self.assertEqual("qemu-system" in said.getvalue(), code == 0)
            (self.folder / "cmdline").write_text("quiet")


# Stands for `touchstone`: writes down what it was asked, and answers as that does.
TOUCHSTONE = """#!/bin/sh
printf '%s\\n' "$*" >> "$(dirname "$0")/asked"
case "$1 $2" in
"measure snp") echo '{"measurements":[{"snp":{}}]}' ;;
"measure tdx") case "$*" in *--rtmr0*) r='"aa"' ;; esac; echo "{\\"measurements\\":[{\\"tdx\\":{\\"rtmr0\\":[$r]}}]}" ;;
"model digest") echo "$(basename "$(dirname "$3")")digest  model" ;;
"manifest add") [ -z "$FAIL" ] || { echo 'it does not stand' >&2; exit 1; } ;;
esac
"""


class Entries(InFolder):
    def setUp(self):
        super().setUp()
        self.out = self.folder / "out"
        self.out.mkdir()
        self.touchstone = self.folder / "touchstone"
        self.touchstone.write_text(TOUCHSTONE)
        self.touchstone.chmod(0o755)
        for model in ("a/1", "b/2"):
            (self.folder / "models" / model).mkdir(parents=True)
            (self.folder / "models" / model / "model.onnx").write_bytes(b"x")
        (self.folder / "models" / "notes").mkdir()

    def written(self, **wishes) -> tuple[list[str], list[str]]:
        (self.folder / "asked").unlink(missing_ok=True)
        wishes = entry.Wishes(**wishes)
        made = entry.Entry(self.touchstone, self.out, pinned.load(), QUIET)
        made.measure(wishes)
        left = made.manifest(wishes, entry.models_of(self.folder / "models"), {"usr/bin/enclave": Path("/e")}, Path("/l"))
        return left, (self.folder / "asked").read_text().splitlines()

    def test_what_is_not_known_is_asked_for(self):
        end, snp, tdx = "2027-01-01T00:00:00Z", "Genoa:snp=1", "tcb_evaluation_data_number=17"
        left, asked = self.written()
        self.assertEqual([a.split()[:2] for a in asked], [["measure", "snp"], ["measure", "tdx"]])
        self.assertIn("--not-after", left[0])
        left, asked = self.written(not_after=end)
        self.assertEqual([" ".join(a.split()[:2]) for a in asked[2:]], ["manifest new"] + ["model digest", "manifest add-model"] * 2)
        self.assertTrue(any("sev-snp is not in the manifest" in line and "--minimum-tcb" in line for line in left))
        self.assertTrue(any("tdx is not in the manifest" in line and "RTMR0" in line for line in left))

        left, asked = self.written(not_after=end, minimum_tcb=[snp, tdx])
        added = [a for a in asked if a.startswith("manifest add ")]
        self.assertEqual(len(added), 1)
        self.assertIn("--platform sev-snp", added[0])
        self.assertIn("--origin kernel=pinned-binary", added[0])
        self.assertIn("--origin enclave=rebuilt", added[0])
        self.assertIn(f"--minimum-tcb {snp}", added[0])
        self.assertNotIn(tdx, added[0])
        self.assertTrue(any("tdx is not in" in line and "least TCB" not in line for line in left))
        left, asked = self.written(not_after=end, minimum_tcb=[snp, tdx], rtmr0=["aa"])
        self.assertEqual(sum(a.startswith("manifest add ") for a in asked), 2)
        self.assertEqual([line.split(":")[0] for line in left], ["next"])
        self.assertTrue(any(a.startswith("manifest add-model") and "--name b --version 2 --digest bdigest" in a for a in asked))

    def test_what_does_not_stand_ends_the_build(self):
        wishes = dict(not_after="2027-01-01T00:00:00Z", minimum_tcb=["Genoa:snp=1"])
        self.written(**wishes)
        with mock.patch.dict(os.environ, {"FAIL": "yes"}), self.stops(CANNOT, "manifest add", "it does not stand"):
            self.written(**wishes)


class Repository(unittest.TestCase):
    def test_pins_stand(self):
        pins = pinned.load()
        names = [p.name for p in pins.packages]
        self.assertEqual(len(names), len(set(names)))
        for use in pinned.USES:
            self.assertTrue(pins.of_use(use), use)
        self.assertTrue(all(p.licence and p.purpose and p.use for p in pins.packages))

    def test_settings_name_the_pinned_library(self):
        for name in ("enclave-vsock.toml", "enclave-tcp.toml"):
            self.assertIn(f'sha256 = "{pinned.onnxruntime()}"', (build.SETTINGS / name).read_text())

    def test_help_and_wrong_arguments(self):
        for main in (build.main, repro.main):
            for words, code in ((["--help"], 0), (["--nonsense"], 1)):
                with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as caught:
                    main(words)
                self.assertEqual(caught.exception.code, code)
                self.assertEqual("example:" in out.getvalue(), code == 0)


if __name__ == "__main__":
    unittest.main()
