"""The enclaves, platforms and authorities that cases speak of. Keys are new in every run."""

from functools import cached_property

from . import log
from .amd import Pki, Platform
from .bundle import PREFIX, Enclave
from .digests import sha256
from .encoding import b64

# The point of order one. For those who do not refuse it, R = A = identity and S = 0 sign anything.
IDENTITY = b"\1" + bytes(31)

CSP = "CN=cc-us-east-2.cloud.example"


def _log_under(name):
    def change(enclave, keyset):
        enclave.origin = name
        keyset["log"] = log.vkey(name, enclave.log_key.public_key().public_bytes_raw())

    return change


def _drop(member):
    return lambda enclave, keyset: keyset.pop(member)


def _put(**values):
    return lambda enclave, keyset: keyset.update(values)


def _wrong_hash(enclave, keyset):
    name, hash_, key = keyset["log"].split("+", 2)
    keyset["log"] = f"{name}+{int(hash_, 16) ^ 1:08x}+{key}"


def _witness_kind(enclave, keyset):
    """A verifier key of algorithm 4 (cosignature), whose hash fits."""
    raw = b"\4" + enclave.log_key.public_key().public_bytes_raw()
    hash_ = sha256(enclave.origin.encode() + b"\n" + raw)[:4]
    keyset["log"] = f"{enclave.origin}+{hash_.hex()}+{b64(raw)}"


def _times(start, end):
    return lambda enclave, keyset: keyset.update(not_before=enclave.now + start, not_after=enclave.now + end)


KEYSETS = {
    "full-keyset": _put(previous="ab" * 32, tls_spki_sha256="cd" * 32, ohttp_keys=b64(b"ohttp-key-config")),
    "keyset-long-name": _put(name="x" * 256),
    "keyset-unicode-name": _put(name="анклав–示例"),
    "keyset-last-second": _times(-600, 0),
    "keyset-unknown-member": _put(tls="none"),
    "keyset-no-software": _drop("software"),
    "keyset-empty-ohttp": _put(ohttp_keys=""),
    "keyset-ohttp-base64": _put(ohttp_keys="AA"),
    "keyset-empty-spki": _put(tls_spki_sha256=""),
    "keyset-previous-empty": _put(previous=""),
    "keyset-upper-case-digest": _put(software="AB" * 32),
    "keyset-key-31-bytes": _put(receipt_key="ed25519:" + b64(bytes(31))),
    "keyset-key-no-prefix": lambda e, k: k.update(receipt_key=k["receipt_key"].removeprefix("ed25519:")),
    "keyset-key-of-another-kind": lambda e, k: k.update(receipt_key=k["receipt_key"].replace("ed25519:", "ed448:")),
    "keyset-log-hash-wrong": _wrong_hash,
    "keyset-log-not-ed25519": _witness_kind,
    "keyset-name-too-long": _put(name="x" * 257),
    "keyset-name-a-number": _put(name=7),
    "keyset-negative-time": _put(not_before=-1),
    "keyset-version-2": _put(v="touchstone/keyset/2"),
    "keyset-over-8-kib": _put(ohttp_keys=b64(bytes(8 << 10))),
    "keyset-small-order": _put(receipt_key="ed25519:" + b64(IDENTITY)),
    "keyset-ended": _times(-600, -10),
    "keyset-long": _times(-600, 400 * 86400),
    "keyset-reversed": _times(600, -600),
    "keyset-origin-without-key": _log_under(PREFIX),
    "keyset-origin-of-another-key": _log_under(f"{PREFIX}/{'0' * 16}"),
    "keyset-log-of-another-enclave": lambda e, k: k.update(
        log=log.vkey(log.origin(PREFIX, sha256(b"another key")), sha256(b"another key"))
    ),
}


class World:
    def __init__(self, worlds: "Worlds", enclave: Enclave):
        self.worlds, self.enclave = worlds, enclave

    @property
    def other(self) -> Enclave:
        return self.worlds.other

    @property
    def evil(self) -> Pki:
        return self.worlds.evil

    @property
    def turin_pki(self) -> Pki:
        return self.worlds.pki("Turin")


class Worlds:
    def __init__(self, now: int):
        self.now = now
        self._pkis: dict[str, Pki] = {}
        self._worlds: dict[str, World] = {}
        self.measurement = sha256(b"measured guest") + bytes(16)

    def pki(self, product: str) -> Pki:
        if product not in self._pkis:
            self._pkis[product] = Pki(product, self.now)
        return self._pkis[product]

    @cached_property
    def evil(self) -> Pki:
        """A stranger who uses the genuine names."""
        return Pki("Genoa", self.now)

    @cached_property
    def other(self) -> Enclave:
        """Another genuine enclave, of another measurement, on another chip."""
        return Enclave(Platform(self.pki("Genoa"), measurement=sha256(b"another guest") + bytes(16)), self.now)

    def roots(self) -> dict[str, list[bytes]]:
        own = [self.pki(p).ark for p in ("Genoa", "Milan", "Turin")]
        return {"own": own, "other": [self.evil.ark], "all": [self.evil.ark, *own]}

    def world(self, name: str) -> World:
        if name not in self._worlds:
            self._worlds[name] = World(self, self._enclave(name))
        return self._worlds[name]

    def _enclave(self, name: str) -> Enclave:
        product, version = {
            "genoa2": ("Genoa", 2), "genoa3": ("Genoa", 3), "turin": ("Turin", 5), "milan": ("Milan", 3)
        }.get(name, ("Genoa", 5))  # fmt: skip
        csp = CSP if name == "vlek" else None
        enclave = Enclave(Platform(self.pki(product), version, self.measurement, csp=csp), self.now)
        if name == "second-epoch":
            enclave.catalog = enclave.make_catalog(epoch=7, previous=sha256(b"epoch 6"))
        elif name in KEYSETS:
            enclave.change_keyset(KEYSETS[name])
        elif name not in ("genoa", "genoa2", "genoa3", "turin", "milan", "vlek"):
            raise KeyError(name)
        return enclave
