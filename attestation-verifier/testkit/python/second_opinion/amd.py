"""A synthetic AMD: ARK, ASK, VCEK with AMD's extensions, the ARK's CRL, and SNP reports.

Shapes follow AMD's own: names, RSASSA-PSS with SHA-384 and a salt of 48 bytes, the explicit default
trailerField in ARK and ASK that AMD writes, the extension arc 1.3.6.1.4.1.3704.1 (specification
57230), and the attestation report of the SEV-SNP ABI (56860, table 23).
"""

import secrets
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from . import der
from .digests import sha256
from .encoding import b64

DAY = 86400
AMD = "1.3.6.1.4.1.3704.1"
SHA384, MGF1, PSS = "2.16.840.1.101.3.4.2.2", "1.2.840.113549.1.1.8", "1.2.840.113549.1.1.10"


def spki(key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pss(explicit_trailer: bool, salt: int = 48) -> bytes:
    """AlgorithmIdentifier of RSASSA-PSS with SHA-384 (RFC 4055)."""
    sha384 = der.sequence(der.oid(SHA384), der.null())
    parts = [
        der.explicit(0, sha384),
        der.explicit(1, der.sequence(der.oid(MGF1), sha384)),
        der.explicit(2, der.integer(salt)),
    ]
    if explicit_trailer:
        parts.append(der.explicit(3, der.integer(1)))
    return der.sequence(der.oid(PSS), der.sequence(*parts))


def sign_rsa(key: rsa.RSAPrivateKey, data: bytes, salt: int = 48) -> bytes:
    return key.sign(data, padding.PSS(padding.MGF1(hashes.SHA384()), salt), hashes.SHA384())


def name(common_name: str) -> bytes:
    """A distinguished name as AMD writes it."""
    attributes = [
        ("2.5.4.11", der.utf8("Engineering")),
        ("2.5.4.6", der.printable("US")),
        ("2.5.4.7", der.utf8("Santa Clara")),
        ("2.5.4.8", der.utf8("CA")),
        ("2.5.4.10", der.utf8("Advanced Micro Devices")),
        ("2.5.4.3", der.utf8(common_name)),
    ]
    return der.sequence(*(der.set_of(der.sequence(der.oid(oid), value)) for oid, value in attributes))


def extension(dotted: str, value: bytes, critical: bool = False) -> bytes:
    flag = [der.boolean(True)] if critical else []
    return der.sequence(der.oid(dotted), *flag, der.octet_string(value))


def authority(key) -> list[bytes]:
    """Extensions of a certificate authority."""
    usage = der.bit_string(b"\x06", 1)  # keyCertSign, cRLSign
    key_id = sha256(spki(key))[:20]
    return [
        extension("2.5.29.15", usage, critical=True),
        extension("2.5.29.14", der.octet_string(key_id)),
        extension("2.5.29.19", der.sequence(der.boolean(True)), critical=True),
    ]


def certificate(
    subject, subject_key, issuer, issuer_key, not_before, not_after, extensions, serial=1, trailer=True, outer=None
) -> bytes:
    """Signs a certificate; `outer` puts another algorithm beside the signature than inside it."""
    algorithm = pss(trailer)
    body = der.sequence(
        der.explicit(0, der.integer(2)),
        der.integer(serial),
        algorithm,
        name(issuer),
        der.sequence(der.time(not_before), der.time(not_after)),
        name(subject),
        spki(subject_key),
        der.explicit(3, der.sequence(*extensions)),
    )
    return der.sequence(body, outer or algorithm, der.bit_string(sign_rsa(issuer_key, body)))


def crl(issuer, issuer_key, this_update, next_update, revoked=(), number=1) -> bytes:
    """A version 2 certificate revocation list (RFC 5280 section 5)."""
    algorithm = pss(True)
    entries = [der.sequence(der.integer(serial), der.time(this_update)) for serial in revoked]
    body = der.sequence(
        der.integer(1),
        algorithm,
        name(issuer),
        der.time(this_update),
        der.time(next_update),
        *([der.sequence(*entries)] if entries else []),
        der.explicit(0, der.sequence(extension("2.5.29.20", der.integer(number)))),
    )
    return der.sequence(body, algorithm, der.bit_string(sign_rsa(issuer_key, body)))


@dataclass(frozen=True)
class Tcb:
    """Security version numbers; `fmc` exists on Turin alone."""

    bootloader: int = 0x20
    tee: int = 0x02
    snp: int = 0x40
    microcode: int = 0xF0
    fmc: int = 0x10

    def bytes(self, product: str) -> bytes:
        if product == "Turin":
            return bytes([self.fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode])
        return bytes([self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode])


CPUID = {"Milan": (0x19, 0x01, 1), "Genoa": (0x19, 0x11, 1), "Turin": (0x1A, 0x02, 1)}


def vcek_extensions(product: str, hwid: bytes, tcb: Tcb) -> list[tuple[str, bytes]]:
    """(suffix of AMD's arc, value) in the order in which AMD writes them."""
    levels = [("3.1", tcb.bootloader), ("3.2", tcb.tee), ("3.3", tcb.snp)]
    levels += [(f"3.{n}", 0) for n in ((5, 6, 7) if product == "Turin" else (4, 5, 6, 7))]
    levels += [("3.8", tcb.microcode)]
    if product == "Turin":
        levels.insert(0, ("3.9", tcb.fmc))
    return [
        ("1", der.integer(1 if product == "Turin" else 0)),
        ("2", der.ia5("Milan-B0" if product == "Milan" else product)),
        *((suffix, der.integer(level)) for suffix, level in levels),
        ("4", hwid),
    ]


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 4096)


@dataclass
class Pki:
    """One product's authorities. `now` places every validity window."""

    product: str
    now: int
    ark_key: rsa.RSAPrivateKey = field(default_factory=_rsa)
    ask_key: rsa.RSAPrivateKey = field(default_factory=_rsa)

    def __post_init__(self):
        self.ark_name, self.ask_name = f"SIM-ARK-{self.product}", f"SIM-SEV-{self.product}"
        self.ark = self.authority_certificate("ark")
        self.ask = self.authority_certificate("ask")
        self.crl = self.revocations()

    def authority_certificate(self, which: str, **changes) -> bytes:
        ark = which == "ark"
        values = {
            "subject": self.ark_name if ark else self.ask_name,
            "subject_key": self.ark_key if ark else self.ask_key,
            "issuer": self.ark_name,
            "issuer_key": self.ark_key,
            "not_before": self.now - 400 * DAY,
            "not_after": self.now + 8000 * DAY,
            "extensions": authority(self.ark_key if ark else self.ask_key),
            "serial": 0x10001 if ark else 0x10002,
        }
        return certificate(**(values | changes))

    @cached_property
    def asvk_key(self) -> rsa.RSAPrivateKey:
        return _rsa()

    @cached_property
    def asvk(self) -> bytes:
        """The intermediate over VLEKs, which cloud providers are given."""
        return self.authority_certificate(
            "ask", subject=f"SIM-SEV-VLEK-{self.product}", subject_key=self.asvk_key,
            extensions=authority(self.asvk_key), serial=0x10003,
        )  # fmt: skip

    def vlek(self, key, csp, tcb, edit=None, **changes) -> bytes:
        """As `vcek`, with the cloud provider's identity in place of the chip's."""

        def provider(extensions):
            named = [*(x for x in extensions if x[0] != "4"), ("5", der.ia5(csp))]
            return edit(named) if edit else named

        under = {"subject": "SEV-VLEK", "issuer": f"SIM-SEV-VLEK-{self.product}", "issuer_key": self.asvk_key}
        return self.vcek(key, b"", tcb, provider, **(under | changes))

    def revocations(self, issuer_key=None, age=DAY, life=60 * DAY, revoked=()) -> bytes:
        start = self.now - age
        return crl(self.ark_name, issuer_key or self.ark_key, start, start + life, revoked)

    def vcek(self, key, hwid, tcb, edit=None, **changes) -> bytes:
        """`edit` changes the list of (suffix, value) before it is signed."""
        extensions = vcek_extensions(self.product, hwid, tcb)
        if edit:
            extensions = edit(extensions)
        values = {
            "subject": "SEV-VCEK",
            "subject_key": key,
            "issuer": self.ask_name,
            "issuer_key": self.ask_key,
            "not_before": self.now - 200 * DAY,
            "not_after": self.now + 2000 * DAY,
            "extensions": [extension(f"{AMD}.{suffix}", value) for suffix, value in extensions],
            "serial": 0,
            "trailer": False,
        }
        return certificate(**(values | changes))


def pem(*certificates: bytes) -> bytes:
    out = ""
    for cert in certificates:
        text = b64(cert)
        lines = "\n".join(text[i : i + 64] for i in range(0, len(text), 64))
        out += f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"
    return out.encode()


# Bits of POLICY and PLATFORM_INFO (56860, tables 9 and 24).
POLICY_SMT, POLICY_ONE, POLICY_MIGRATE_MA, POLICY_DEBUG = 1 << 16, 1 << 17, 1 << 18, 1 << 19
SIGNED_BY_VLEK = 1 << 2
PLATFORM_SMT, PLATFORM_ECC, PLATFORM_ALIAS_CHECK = 1 << 0, 1 << 2, 1 << 5

# (offset, size) of the report's fields; multi-byte numbers are little-endian.
FIELDS = {
    "version": (0x000, 4), "guest_svn": (0x004, 4), "policy": (0x008, 8), "family_id": (0x010, 16),
    "image_id": (0x020, 16), "vmpl": (0x030, 4), "signature_algo": (0x034, 4), "current_tcb": (0x038, 8),
    "platform_info": (0x040, 8), "flags": (0x048, 4), "reserved_4c": (0x04C, 4), "report_data": (0x050, 64),
    "measurement": (0x090, 48), "host_data": (0x0C0, 32), "id_key_digest": (0x0E0, 48),
    "author_key_digest": (0x110, 48), "report_id": (0x140, 32), "report_id_ma": (0x160, 32),
    "reported_tcb": (0x180, 8), "cpuid": (0x188, 3), "reserved_18b": (0x18B, 21), "chip_id": (0x1A0, 64),
    "committed_tcb": (0x1E0, 8), "current_version": (0x1E8, 4), "committed_version": (0x1EC, 4),
    "launch_tcb": (0x1F0, 8), "launch_mit_vector": (0x1F8, 8), "current_mit_vector": (0x200, 8),
    "reserved_208": (0x208, 0x98),
}  # fmt: skip
SIGNED, SIZE = 0x2A0, 1184


class Platform:
    """One chip that runs one measured guest and signs what it is asked to: with its VCEK, or a provider's VLEK."""

    def __init__(self, pki: Pki, version: int = 5, measurement: bytes | None = None, tcb: Tcb = Tcb(), csp=None):
        self.pki, self.version, self.tcb = pki, version, tcb
        self.measurement = measurement or secrets.token_bytes(48)
        self.hwid = secrets.token_bytes(8 if pki.product == "Turin" else 64)
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.csp = csp
        self.vek = pki.vlek(self.key, csp, tcb) if csp else pki.vcek(self.key, self.hwid, tcb)
        self.intermediate = pki.asvk if csp else pki.ask
        self.report_id = secrets.token_bytes(32)

    def fields(self, report_data: bytes) -> dict:
        tcb = self.tcb.bytes(self.pki.product)
        values = {
            "version": self.version,
            "policy": POLICY_SMT | POLICY_ONE,
            "signature_algo": 1,
            "flags": SIGNED_BY_VLEK if self.csp else 0,
            "current_tcb": tcb,
            "platform_info": PLATFORM_SMT | PLATFORM_ECC | PLATFORM_ALIAS_CHECK,
            "report_data": report_data,
            "measurement": self.measurement,
            "report_id": self.report_id,
            "report_id_ma": b"\xff" * 32,
            "reported_tcb": tcb,
            "cpuid": bytes(CPUID[self.pki.product]),
            "chip_id": self.hwid.ljust(64, b"\0"),
            "committed_tcb": tcb,
            "current_version": bytes([1, 58, 1, 0]),
            "committed_version": bytes([1, 58, 1, 0]),
            "launch_tcb": tcb,
        }
        if self.version < 3:
            del values["cpuid"]
            values["platform_info"] = PLATFORM_SMT
        if self.version >= 5:
            values |= {"launch_mit_vector": 0x0F, "current_mit_vector": 0x0F}
        return values

    def report(self, report_data: bytes, key=None, **changes) -> bytes:
        body = bytearray(SIGNED)
        for field_name, value in (self.fields(report_data) | changes).items():
            offset, size = FIELDS[field_name]
            body[offset : offset + size] = value.to_bytes(size, "little") if isinstance(value, int) else value
        if len(body) != SIGNED:
            raise ValueError("report: a field has the wrong size")
        return sign_report(bytes(body), key or self.key)


def sign_report(body: bytes, key) -> bytes:
    """ECDSA P-384 with SHA-384; r and s little-endian in 72 bytes each (56860, table 139)."""
    r, s = decode_dss_signature(key.sign(body, ec.ECDSA(hashes.SHA384())))
    signature = r.to_bytes(72, "little") + s.to_bytes(72, "little")
    return body + signature.ljust(512, b"\0")


def report_field(report: bytes, field_name: str) -> bytes:
    offset, size = FIELDS[field_name]
    return report[offset : offset + size]


def report_number(report: bytes, field_name: str) -> int:
    return int.from_bytes(report_field(report, field_name), "little")

