"""Debian's archive over HTTP: where this machine's apt would look, what a mirror holds now, and files checked against pins."""
from __future__ import annotations

import email.utils
import hashlib
import http.client
import lzma
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from errors import Say, Stop, cannot, ingredient
from pins import Package

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TRIES = 3
TIMEOUT = 60
INDEX_LIMIT = 64 << 20


def apt_mirrors() -> dict[str, str]:
    """Mirror bases by archive, as this machine's apt is set up; what it does not name is absent."""
    if shutil.which("apt-get") is None:
        return {}
    form = "$(IDENTIFIER)|$(ORIGIN)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)"
    ask = ["apt-get", "indextargets", "--format", form]
    found = mirrors_of(subprocess.run(ask, capture_output=True, text=True).stdout)
    # Before the first `apt-get update` it knows what its sources say, not whose they are.
    return mirrors_of(subprocess.run([*ask, "--no-release-info"], capture_output=True, text=True).stdout) | found


def mirrors_of(targets: str) -> dict[str, str]:
    """Bases by archive, out of what apt prints. Where it names no origin, Debian's archives are told from others by the places that they have on every mirror."""
    found: dict[str, str] = {}
    for line in targets.splitlines():
        identifier, origin, release, component, uri = (line.split("|") + [""] * 5)[:5]
        archive, uri = "debian-security" if release.endswith("-security") else "debian", uri.rstrip("/")
        known = origin == "Debian" or (origin == "$(ORIGIN)" and uri.endswith(f"/{archive}"))
        if identifier == "Packages" and known and component == "main" and uri.startswith(("http://", "https://")):
            found.setdefault(archive, uri)
    return found


class Mirror:
    """Fetches from the mirrors given, else from apt's."""

    def __init__(self, say: Say, main: str | None = None, security: str | None = None):
        self.say = say
        self._given = {"debian": main, "debian-security": security}
        self._apt: dict[str, str] | None = None
        self._indexes: dict[tuple, dict] = {}

    def base(self, archive: str) -> str:
        if self._given[archive]:
            return self._given[archive].rstrip("/")
        if self._apt is None:
            self._apt = apt_mirrors()
        if archive not in self._apt:
            option = "--security-mirror" if archive == "debian-security" else "--mirror"
            raise cannot(f"no mirror of the archive {archive} is known: apt on this machine names none. Name one with {option} URL, "
                         f"or supply the packages with --ingredients DIR")
        return self._apt[archive]

    def _get(self, url: str, limit: int, name: str, expected: int | None = None) -> bytes:
        """Bytes of an address; at most `limit`. Trouble on the way is tried again, an answer like 404 is not."""
        last: Exception | str = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(attempt)
            try:
                with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                    length = int(answer.headers.get("Content-Length") or 0)
                    parts, done = [], 0
                    while part := answer.read(1 << 20):
                        parts.append(part)
                        done += len(part)
                        if done > limit:
                            return b"".join(parts)[:limit + 1]
                        self.say.progress(name, done, length or expected or done + 1)
                data = b"".join(parts)
                if length and len(data) < length:
                    last = f"it ended early, after {len(data)} of {length} bytes"
                    continue
                return data
            except urllib.error.HTTPError:
                raise
            except (OSError, http.client.HTTPException) as error:
                last = error
        raise ingredient(f"{url} cannot be read: {last}")

    def package(self, pin: Package) -> bytes:
        """The package, byte for byte as pinned; else an error that says what the mirror has and what can be done."""
        url = f"{self.base(pin.archive)}/{pin.path}"
        self.say(f"fetching {pin.file} ({pin.size / 1e6:.1f} MB)")
        try:
            data = self._get(url, pin.size, pin.file, pin.size)
        except urllib.error.HTTPError as error:
            raise self._moved(pin, f"{url} answers {error.code} {error.reason}") from None
        found = hashlib.sha256(data).hexdigest()
        if found != pin.sha256:
            size = f"more than {pin.size}" if len(data) > pin.size else str(len(data))
            raise self._moved(pin, f"{url} gives other bytes than those pinned: {size} bytes, SHA-256 {found}")
        return data

    def _moved(self, pin: Package, what: str) -> Stop:
        try:
            now = self.current(pin, verify=False)
            current = f"{now.name} {now.version}" if now else f"no package {pin.follow or pin.name}"
        except (Stop, urllib.error.HTTPError) as error:
            current = f"(its index cannot be read: {error})"
        return ingredient(
            f"{what}\n"
            f"  package    {pin.name}\n"
            f"  pinned     {pin.version}, {pin.size} bytes, SHA-256 {pin.sha256}\n"
            f"  mirror has {current}, in {pin.suite}\n"
            f"Nothing else is taken in its place. Either supply the file itself ({pin.file}) in a folder, with --ingredients DIR, or fetch from\n"
            f"a mirror that still has it (--mirror, --security-mirror; archives of old packages have one), or look at what is new and pin it:\n"
            f"  scripts/build-image --update-pin {pin.follow or pin.name}")

    def index(self, archive: str, suite: str, verify: bool) -> dict[str, dict[str, str]]:
        """The packages of a suite, by name. With `verify`, by Debian's signature over the release file."""
        key = (archive, suite, verify)
        if key in self._indexes:
            return self._indexes[key]
        base = f"{self.base(archive)}/dists/{suite}"
        path = "main/binary-amd64/Packages.xz"
        packed = self._get(f"{base}/{path}", INDEX_LIMIT, f"index of {suite}")
        if verify:
            signed = verified(self._get(f"{base}/InRelease", 4 << 20, "InRelease"))
            check_release(signed, suite, f"{base}/InRelease")
            listed = [line.split() for line in signed.partition("SHA256:")[2].splitlines()]
            wanted = next((words[0] for words in listed if len(words) == 3 and words[2] == path), None)
            if wanted != hashlib.sha256(packed).hexdigest():
                raise ingredient(f"{base}/{path} is not the index that the signed release file names")
        text = lzma.LZMADecompressor().decompress(packed, max_length=16 * INDEX_LIMIT).decode("utf-8", "replace")
        packages: dict[str, dict[str, str]] = {}
        for stanza in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in stanza.split("\n") if ": " in line and not line.startswith(" "))
            if "Package" in fields:
                packages[fields["Package"]] = fields
        self._indexes[key] = packages
        return packages

    def current(self, pin: Package, verify: bool) -> Package | None:
        """What the mirror has now in the place of a pinned package; None if it has none."""
        packages = self.index(pin.archive, pin.suite, verify)
        name = pin.name
        if pin.follow:
            name = packages.get(pin.follow, {}).get("Depends", "").split(",")[0].split("(")[0].strip()
        fields = packages.get(name)
        if fields is None:
            return None
        return Package(name=name, version=fields["Version"], suite=pin.suite, archive=pin.archive, path=fields["Filename"],
                       size=int(fields["Size"]), sha256=fields["SHA256"], licence=pin.licence, use=pin.use,
                       purpose=pin.purpose, follow=pin.follow)


def check_release(signed: str, suite: str, url: str) -> None:
    """Refuses what Debian signed of another suite, or no longer stands for: a mirror, or whoever is between, could go back to old packages."""
    fields = dict(line.split(": ", 1) for line in signed.splitlines() if ": " in line and not line.startswith(" "))
    if suite not in (fields.get("Codename"), fields.get("Suite")):
        raise ingredient(f"{url} is of {fields.get('Codename')} ({fields.get('Suite')}), not of {suite}")
    until = fields.get("Valid-Until")
    if until is not None and email.utils.parsedate_to_datetime(until.replace("UTC", "+0000")).timestamp() < time.time():
        raise ingredient(f"{url} was valid until {until}: the mirror is out of date, or somebody would have it so")


def verified(inrelease: bytes) -> str:
    """The text of a release file that Debian's archive keys signed."""
    if shutil.which("gpgv") is None or not KEYRING.is_file():
        raise cannot("Debian's signature over the index cannot be verified: gpgv or its keyring is missing (packages gpgv and "
                     "debian-archive-keyring). To go without: --unsigned-index")
    with tempfile.TemporaryDirectory() as folder:
        signed, text = Path(folder, "InRelease"), Path(folder, "text")
        signed.write_bytes(inrelease)
        done = subprocess.run(["gpgv", "--keyring", str(KEYRING), "--output", str(text), str(signed)],
                              capture_output=True, text=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C"})
        if done.returncode:
            raise ingredient(f"the mirror's release file is not signed by Debian's archive keys:\n{done.stderr.strip()}")
        return text.read_text()
