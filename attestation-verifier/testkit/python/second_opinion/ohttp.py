"""Sealed requests (Oblivious HTTP, RFC 9458; formats.md section 13): the key's evidence, requests to it, answers from it.

HPKE is pyhpke's; AES-128-GCM and HKDF of answers are those of `cryptography`.
"""

import http.client
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pyhpke import AEADId, CipherSuite, KDFId, KEMId

from . import Malformed, Untrue, bhttp, jcs, keyset
from .digests import sha256
from .encoding import unb64
from .judge import need
from .session import SECONDS, Answer, Session, fresh_nonce, judge_evidence

BOOT, TARGET = "/v1/boot", "/v1/ohttp"
REQUEST_TYPE, ANSWER_TYPE = "message/ohttp-req", "message/ohttp-res"
IDS = (KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES128_GCM)
SUITE = CipherSuite.new(*IDS)
KEM, KDF, AEAD = (part.value for part in IDS)
KEY, ENTROPY = 32, 16


def header(key_id: int) -> bytes:
    return struct.pack(">BHHH", key_id, KEM, KDF, AEAD)


def info(key_id: int) -> bytes:
    return b"message/bhttp request\0" + header(key_id)


def configuration(data: bytes) -> tuple[int, bytes]:
    """Id and public key of the first configuration of the suite, out of `application/ohttp-keys`; all others are passed over."""
    found = None
    while data:
        if len(data) < 2:
            raise Malformed("ohttp: a list of keys that is cut off")
        size = int.from_bytes(data[:2], "big")
        one, data = data[2 : 2 + size], data[2 + size :]
        if len(one) != size or size < 3:
            raise Malformed("ohttp: a list of keys that is cut off")
        key_id, kem = struct.unpack_from(">BH", one)
        if kem != KEM:  # The length of its key is not known here.
            continue
        suites = one[3 + KEY + 2 :]
        if len(one) < 3 + KEY + 2 or struct.unpack_from(">H", one, 3 + KEY)[0] != len(suites) or not suites or len(suites) % 4:
            raise Malformed("ohttp: lengths of a key configuration")
        pairs = [struct.unpack_from(">HH", suites, at) for at in range(0, len(suites), 4)]
        if found is None and (KDF, AEAD) in pairs:
            found = key_id, one[3 : 3 + KEY]
    need(found is not None, "ohttp: no key of the suite")
    return found


@dataclass(frozen=True)
class Waiting:
    """What opens the answer to one request."""

    enc: bytes
    secret: bytes

    def cipher(self, nonce: bytes) -> tuple[AESGCM, bytes]:
        key, iv = (HKDF(SHA256(), size, self.enc + nonce, name).derive(self.secret) for name, size in ((b"key", 16), (b"nonce", 12)))
        return AESGCM(key), iv

    def open(self, sealed: bytes) -> bytes:
        need(len(sealed) >= ENTROPY + 16, "ohttp: the answer does not open")
        cipher, iv = self.cipher(sealed[:ENTROPY])
        try:
            return cipher.decrypt(iv, sealed[ENTROPY:], b"")
        except InvalidTag:
            raise Untrue("ohttp: the answer does not open") from None

    def seal(self, content: bytes, nonce: bytes) -> bytes:
        """The gateway's part, for known answers."""
        cipher, iv = self.cipher(nonce)
        return nonce + cipher.encrypt(iv, content, b"")


def _context(enc: bytes, context) -> Waiting:
    return Waiting(enc, context.export(b"message/bhttp response", ENTROPY))


def seal(key_id: int, public: bytes, content: bytes, ephemeral=None) -> tuple[bytes, Waiting]:
    """An encapsulated request. `ephemeral`: a key pair, for known answers alone."""
    key = SUITE.kem.deserialize_public_key(public)
    enc, context = SUITE.create_sender_context(key, info(key_id), eks=ephemeral)
    return header(key_id) + enc + context.seal(content), _context(enc, context)


def unseal(secret: bytes, sealed: bytes) -> tuple[bytes, Waiting]:
    """The gateway's part, for known answers."""
    key_id, enc = sealed[0], sealed[7 : 7 + KEY]
    if sealed[:7] != header(key_id):
        raise Malformed("ohttp: another suite")
    context = SUITE.create_recipient_context(enc, SUITE.kem.deserialize_private_key(secret), info(key_id))
    return context.open(sealed[7 + KEY :]), _context(enc, context)


class OtherKey(Untrue):
    """Said outside: sealed to another key, or for another keyset."""


class Sealed:
    """Requests to an enclave by way of a host's own HTTP, each sealed to a key that was proven."""

    def __init__(self, address: str, collateral: bytes, root: bytes, measurement: bytes, clock):
        self.address, self.collateral, self.root = address, collateral, root
        self.measurement, self.clock = measurement, clock
        self.sealed = 0  # how many requests were sent
        self.prove()

    def post(self, target: str, kind: str, body: bytes, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.address, timeout=SECONDS)
        try:
            connection.request("POST", target, body, {"Content-Type": kind} | headers)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    def prove(self) -> None:
        """Has evidence made for a fresh nonce and judges it. Nothing is sealed before."""
        nonce = fresh_nonce()
        request = jcs.to_file({"v": "touchstone/session/1", "nonce": nonce.hex()})
        answer = self.post(BOOT, "application/json", request)
        need(answer.status == 200, f"ohttp: no evidence, status {answer.status}")
        self.opened_at = self.clock()
        self.proof, self.nonce = answer.body, nonce
        self.session = judge(answer.body, nonce, self.collateral, self.root, self.opened_at)
        need(self.session.measurement == self.measurement, "ohttp: another measurement")
        self.key = configuration(unb64(self.session.keyset["ohttp_keys"]))

    def exchange(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """One request and its answer; `_` in a header's name stands for `-`. It is sealed again once, to another key that was proven."""
        fields = [("content-type", "application/json")]
        fields += [(name.replace("_", "-").lower(), value) for name, value in headers.items()]
        try:
            return self.once(method, target, fields, body)
        except OtherKey:
            used = self.session.keyset_digest
            self.prove()
            if self.session.keyset_digest == used:
                raise
            return self.once(method, target, fields, body)

    def once(self, method: str, target: str, fields: list[tuple[str, str]], body: bytes) -> Answer:
        message = bhttp.request(method, self.address, target, fields, body)
        sealed, waiting = seal(*self.key, message)
        self.sealed += 1
        answer = self.post(TARGET, REQUEST_TYPE, sealed, **{"Touchstone-Keyset": self.session.keyset_digest.hex()})
        if answer.status == 422:
            raise OtherKey("ohttp: refused with 422")
        need(answer.status == 200, f"ohttp: refused with {answer.status}")
        need(answer.headers.get("content-type") == ANSWER_TYPE, "ohttp: the answer is not sealed")
        status, fields, content = bhttp.read_answer(waiting.open(answer.body))
        return Answer(status, dict(fields), content)

    def record(self) -> bytes:
        """`session.json`, for `touchstone check`."""
        keys, given = unb64(self.session.keyset["ohttp_keys"]), jcs.from_file(self.collateral)
        evidence = jcs.from_file(self.proof)["evidence"] | {"collateral": given["collateral"]}
        return jcs.to_file({
            "v": "touchstone/ohttp-record/1", "nonce": self.nonce.hex(), "ohttp_keys_sha256": sha256(keys).hex(),
            "opened_at": self.opened_at, "keyset": self.session.keyset, "evidence": evidence,
        })  # fmt: skip


def judge(answer: bytes, nonce: bytes, collateral: bytes, root: bytes, now: int) -> Session:
    """Raises where anything is malformed or untrue, as `session.judge`."""

    def own(keys: dict) -> None:
        need("ohttp_keys" in keys, "ohttp: the keyset has no key")

    return judge_evidence(answer, collateral, root, now, "boot", nonce, keyset.bind_boot(), own)
