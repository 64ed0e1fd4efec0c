"""An attested connection, opened over OpenSSL's TLS and judged (formats.md sections 3 and 10)."""

import secrets
import socket
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from . import Malformed, jcs, keyset
from .amd import SIZE, report_field
from .digests import sha256
from .encoding import unb64, unhex
from .judge import need, signatures

LABEL = b"EXPORTER-touchstone-v1"
TARGET = "/v1/session"
SECONDS = 30


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict  # names in lower case
    body: bytes


class Connection:
    """TLS 1.3 to whoever answers. The certificate is taken as it comes: its key is judged, not its names."""

    def __init__(self, host: str, port: int):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_verify(SSL.VERIFY_NONE)
        plain = socket.create_connection((host, port), SECONDS)
        # A socket with Python's own timeout is non-blocking underneath, which OpenSSL would notice.
        plain.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            plain.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", SECONDS, 0))
        self.authority = f"{host}:{port}"
        self.tls = SSL.Connection(context, plain)
        self.tls.set_connect_state()
        self.tls.do_handshake()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tls.close()

    @property
    def version(self) -> str:
        return self.tls.get_protocol_version_name()

    def spki_digest(self) -> bytes:
        key = self.tls.get_peer_certificate().to_cryptography().public_key()
        return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    def exporter(self, nonce: bytes) -> bytes:
        return self.tls.export_keying_material(LABEL, 32, nonce)

    def exchange(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """One request and its answer; `_` in a header's name stands for `-`."""
        fields = {"Host": self.authority, "Content-Length": str(len(body)), "Content-Type": "application/json"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.tls.sendall(head.encode() + b"\r\n" + body)
        read = b""
        while b"\r\n\r\n" not in read:
            read += self.tls.recv(1 << 16)
        head, _, body = read.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        named = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(named["content-length"])
        while len(body) < length:
            body += self.tls.recv(1 << 16)
        if len(body) != length:
            raise Malformed("answer: longer than it says")
        return Answer(int(first.split()[1]), named, body)

    def open(self, nonce: bytes) -> Answer:
        """The first exchange; `nonce` was never used before."""
        request = jcs.to_file({"v": "touchstone/session/1", "nonce": nonce.hex()})
        return self.exchange("POST", TARGET, request)


@dataclass(frozen=True)
class Seen:
    """What the caller knows of his own end of a connection."""

    nonce: bytes
    exporter: bytes
    spki_digest: bytes

    @classmethod
    def of(cls, connection: Connection, nonce: bytes) -> "Seen":
        return cls(nonce, connection.exporter(nonce), connection.spki_digest())


def fresh_nonce() -> bytes:
    return secrets.token_bytes(32)


@dataclass(frozen=True)
class Session:
    keyset: dict
    keyset_digest: bytes
    measurement: bytes


def judge(answer: bytes, seen: Seen, collateral: bytes, root: bytes, now: int) -> Session:
    """Raises where anything is malformed or untrue. `collateral`: the file of the host; `root`: the ARK, DER."""

    def own(keys: dict) -> None:
        need(keys.get("tls_spki_sha256") == seen.spki_digest.hex(), "session: another TLS key")

    bind = keyset.bind_session(seen.spki_digest, seen.exporter)
    return judge_evidence(answer, collateral, root, now, "session", seen.nonce, bind, own)


def judge_evidence(answer: bytes, collateral: bytes, root: bytes, now: int, purpose: str, nonce: bytes, bind: bytes, own) -> Session:
    """What sessions and sealed requests have in common. `own` needs of the keyset what only one of them does."""
    value, given = jcs.from_file(answer), jcs.from_file(collateral)
    if not isinstance(value, dict) or set(value) != {"v", "keyset", "evidence"} or value["v"] != "touchstone/session/1":
        raise Malformed("session: members or version")
    if not isinstance(given, dict) or set(given) != {"v", "tee", "collateral"} or given["v"] != "touchstone/collateral/1":
        raise Malformed("collateral: members or version")
    keys, item = value["keyset"], value["evidence"]
    if not {"purpose", "nonce", "tee", "quote"} <= set(item) <= {"purpose", "nonce", "tee", "quote", "collateral"}:
        raise Malformed("session: members of the evidence")
    digest = keyset.check(keys)
    own(keys)
    need(keys["not_before"] - 300 <= now <= keys["not_after"], "session: outside the keyset's life")
    need(item["purpose"] == purpose, f"session: evidence of purpose {item['purpose']}")
    need(item["nonce"] is not None and unhex(item["nonce"], 32) == nonce, "session: another nonce")
    need(item["tee"] == given["tee"] == "sev-snp", "session: a platform that is not judged here")
    report = unb64(item["quote"])
    if len(report) != SIZE:
        raise Malformed("session: length of the report")
    expected = keyset.report_data(purpose, digest, nonce, bind)
    need(report_field(report, "report_data") == expected, "session: report data")
    signatures(report, given["collateral"], root)
    return Session(keys, digest, report_field(report, "measurement"))
