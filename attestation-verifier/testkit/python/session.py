#!/usr/bin/env python3
"""An attested connection to a real enclave through a real host, by an implementation that shares no code with either.

    session.py --server HOST:PORT --root ROOT.pem --measurement HEX --model MODEL --input NAME=ROW.npy

Opens it, judges it, asks over it, and judges what came; then shows that each piece of what was proven is needed.
"""

import argparse
import json
import re
import socket
import ssl
import struct
import sys
import time
import urllib.error
import urllib.request
import warnings
from dataclasses import replace
from pathlib import Path

from opinion import tensors
from second_opinion import Malformed, Untrue, jcs, npy, receipt
from second_opinion.digests import request_digest, response_digest, sha256
from second_opinion.encoding import b64, unb64
from second_opinion.judge import Caller, judge as judge_bundle
from second_opinion.session import TARGET, Connection, Seen, fresh_nonce, judge

# AMD numbers its VCEK certificates 0, which RFC 5280 forbids and real ones do all the same.
warnings.filterwarnings("ignore", message="Parsed a serial number which wasn't positive")


class Examination:
    def __init__(self, arguments):
        self.host, port = arguments.server.rsplit(":", 1)
        self.port, self.model = int(port), arguments.model
        self.root = ssl.PEM_cert_to_DER_cert(arguments.root.read_text())
        self.measurement = bytes.fromhex(arguments.measurement)
        self.input, path = arguments.input.split("=", 1)
        self.row = npy.read(Path(path))
        self.count, self.wrong = 0, []

    # what is said of each thing that was tried

    def agree(self, what: str, fine: bool, found=None) -> None:
        self.count += 1
        if not fine:
            self.wrong.append(f"{what}{'' if found is None else f': {found}'}")

    def equal(self, what: str, found, expected) -> None:
        self.agree(what, found == expected, f"found {found}, expected {expected}")

    def refused(self, what: str, reason: str, answer: bytes, seen: Seen, now: int | None = None) -> None:
        try:
            judge(answer, seen, self.collateral, self.root, now or int(time.time()))
        except Untrue as error:
            self.equal(what, str(error), reason)
        else:
            self.agree(what, False, "accepted")

    # the parts

    def connect(self) -> Connection:
        return Connection(self.host, self.port)

    def plain(self, method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
        """To the same address without TLS: the host's own HTTP."""
        request = urllib.request.Request(f"http://{self.host}:{self.port}{target}", body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def run(self) -> None:
        status, self.collateral = self.plain("GET", "/v1/collateral")
        self.equal("collateral from the host", status, 200)
        with self.connect() as one, self.connect() as two:
            self.equal("TLS version", one.version, "TLSv1.3")
            for method, target in (("GET", "/v2/health/live"), ("POST", f"/v2/models/{self.model}/infer"), ("GET", TARGET)):
                with self.connect() as early:
                    self.equal(f"{method} {target} before a session", early.exchange(method, target).status, 421)
            nonce = fresh_nonce()
            answer = one.open(nonce)
            self.equal("status of the session", answer.status, 200)
            seen = Seen.of(one, nonce)
            session = judge(answer.body, seen, self.collateral, self.root, int(time.time()))
            self.agree("measurement", session.measurement == self.measurement, session.measurement.hex())
            self.ask(one, session.keyset_digest)
            self.lies(answer.body, seen, one, two)
            again = fresh_nonce()
            answer = one.open(again)
            later = judge(answer.body, Seen.of(one, again), self.collateral, self.root, int(time.time()))
            self.equal("a second session on this connection", later, session)
            self.refused("the first nonce for the second session", "session: another nonce", answer.body, seen)
        self.transport()

    def ask(self, connection, keyset_digest: bytes) -> dict[str, bytes]:
        """An inference over the very connection, or sealed, whose receipt must come from the keyset that was proven; the files to keep."""
        _, shape, raw = self.row
        described = {"name": self.input, "shape": shape, "datatype": "FP32", "data": list(struct.unpack(f"<{len(raw) // 4}f", raw))}
        body, target, nonce = json.dumps({"inputs": [described]}).encode(), f"/v2/models/{self.model}/infer", fresh_nonce()
        asked, at = f"require=(logged signed), nonce=:{b64(nonce)}:", int(time.time())
        answer = connection.exchange("POST", target, body, Touchstone=asked, Prefer="wait=20")
        self.equal("status of the answer", answer.status, 200)
        said = re.search(r'id="([0-9a-f]{32})", keyset=:([^:]+):', answer.headers["touchstone"])
        self.agree("the answer names the session's keyset", unb64(said[2]) == keyset_digest)
        bundle = self.bundle(said[1])
        salts = dict(re.findall(r"(\w+)=:([^:]+):", answer.headers["touchstone-openings"]))
        opened = {
            "request": request_digest("POST", target, None, body), "response": response_digest(200, None, answer.body),
            "inputs": tensors(body, None, "inputs"), "outputs": tensors(answer.body, None, "outputs"),
        }  # fmt: skip
        bundle["openings"] = {role: {"salt": unb64(salts[role]).hex(), "digest": opened[role].hex()} for role in opened}
        caller = Caller(("POST", target, None, body), (200, None, answer.body), nonce)
        opinion = judge_bundle(jcs.to_file(bundle), self.root, caller)
        self.agree("the receipt's keyset is the session's", opinion.claims[receipt.KEYSET] == keyset_digest)
        self.equal("the receipt holds", opinion.achieved, {"logged", "signed"})
        self.equal("the receipt's measurement is the session's", opinion.measurements, {self.measurement})
        expect = {
            "v": "touchstone/expect/1", "method": "POST", "target": target, "header_length": None, "model": self.model, "nonce": nonce.hex(),
            "require": ["logged", "signed"], "request_sha256": sha256(body).hex(), "asked_at": at,
        }  # fmt: skip
        told = {"v": "touchstone/response/1", "status": 200, "header_length": None}
        return {
            "request.bin": body, "expect.json": jcs.to_file(expect), "response.bin": answer.body, "response.json": jcs.to_file(told),
            "bundle.json": jcs.to_file(bundle),
        }  # fmt: skip

    def bundle(self, ticket: str) -> dict:
        """From the host, once it has stored the seal."""
        deadline = time.monotonic() + 30
        while (found := self.plain("GET", f"/v1/receipts/{ticket}"))[0] == 202 and time.monotonic() < deadline:
            time.sleep(0.02)
        self.equal("status of the bundle", found[0], 200)
        return jcs.from_file(found[1])

    def lies(self, answer: bytes, seen: Seen, one: Connection, two: Connection) -> None:
        other = fresh_nonce()
        cases = [
            ("another connection's exporter", replace(seen, exporter=two.exporter(seen.nonce)), "session: report data"),
            ("the exporter for another nonce", replace(seen, exporter=one.exporter(other)), "session: report data"),
            ("another nonce, exported with it", Seen.of(one, other), "session: another nonce"),
            ("another TLS key", replace(seen, spki_digest=bytes(32)), "session: another TLS key"),
        ]
        self.equal("both connections show one key", two.spki_digest(), seen.spki_digest)
        for what, changed, reason in cases:
            self.refused(what, reason, answer, changed)

        def edited(**changes) -> bytes:
            value = jcs.from_file(answer)
            for name, change in changes.items():
                value[name] = value[name] | change
            return jcs.to_file(value)

        self.refused("another keyset beside the quote", "session: report data", edited(keyset={"name": "another.example"}), seen)
        self.refused("evidence that says another purpose", "session: evidence of purpose boot", edited(evidence={"purpose": "boot"}), seen)
        report = bytearray(unb64(jcs.from_file(answer)["evidence"]["quote"]))
        report[0x90] ^= 1
        self.refused("one bit of the measurement", "chain or report: signature", edited(evidence={"quote": b64(bytes(report))}), seen)
        self.refused("after the keyset's end", "session: outside the keyset's life", answer, seen, now=1 << 40)

    def transport(self) -> None:
        """What the enclave's TLS must refuse, by Python's own module."""
        status, _ = self.plain("POST", TARGET, jcs.to_file({"v": "touchstone/session/1", "nonce": fresh_nonce().hex()}))
        self.equal("a session without TLS", status, 421)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((self.host, self.port), 30) as plain, context.wrap_socket(plain) as tls:
            tls.sendall(f"GET /v2/health/live HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
            tls.recv(1 << 16)
            self.agree("no ticket to resume a session with", tls.session is None or not tls.session.has_ticket)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            with socket.create_connection((self.host, self.port), 30) as plain, context.wrap_socket(plain):
                self.agree("TLS 1.2", False, "accepted")
        except ssl.SSLError as error:
            self.equal("TLS 1.2", error.reason, "TLSV1_ALERT_PROTOCOL_VERSION")


def main() -> int:
    return examine(argument_parser(__doc__), Examination, "session")


def argument_parser(about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="the host's one address")
    parser.add_argument("--root", type=Path, required=True, help="the root that signs the chain, PEM")
    parser.add_argument("--measurement", required=True, help="the launch measurement that the enclave must have, hex")
    parser.add_argument("--model", required=True)
    parser.add_argument("--input", required=True, metavar="NAME=FILE", help="a row of FP32, .npy")
    return parser


def examine(parser: argparse.ArgumentParser, kind: type, about: str) -> int:
    examination = kind(parser.parse_args())
    try:
        examination.run()
    except (Malformed, Untrue) as error:
        examination.agree("the honest part", False, error)
    for line in examination.wrong:
        print(f"DISAGREE {about}:", line)
    print(f"second implementation: {about}: {examination.count - len(examination.wrong)} of {examination.count} points agree")
    return 1 if examination.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
