#!/usr/bin/env python3
"""Sealed requests (Oblivious HTTP) to a real enclave through a real host, by an implementation that shares no code with either.

    sealed.py --server HOST:PORT --root ROOT.pem --measurement HEX --model MODEL --input NAME=ROW.npy --liar PROGRAM --keep DIR

Proves the key, asks, judges what came and keeps it for `touchstone check`; then shows that each piece of what was proven is needed,
and that every lie of the man in the middle about the key and about what it carries is refused, and nothing confided to it.
"""

import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from second_opinion import Malformed, Untrue, bhttp, jcs, ohttp
from second_opinion.encoding import b64, unb64
from second_opinion.ohttp import Sealed
from second_opinion.session import fresh_nonce
from session import Examination, argument_parser, examine

REPORT_DATA, NONCE = "session: report data", "session: another nonce"
UNOPENED, UNSEALED = "ohttp: the answer does not open", "ohttp: the answer is not sealed"

# What this implementation says to each lie that can be told before somebody else's enclave, and how many requests it had sealed
# by then. (The others take keys that the liar has not, or two enclaves.)
ABOUT_THE_KEY = {
    "ohttp-own-keyset": REPORT_DATA, "ohttp-own-key": REPORT_DATA, "ohttp-other-kem": REPORT_DATA, "ohttp-other-aead": REPORT_DATA,
    "ohttp-replay": NONCE, "ohttp-stale-nonce": NONCE, "ohttp-renonced": REPORT_DATA,
    "ohttp-session-evidence": "session: evidence of purpose session", "ohttp-relabelled": REPORT_DATA,
}  # fmt: skip
ABOUT_REQUESTS = {
    "ohttp-request-alter": "ohttp: refused with 400", "ohttp-request-cut": "ohttp: refused with 400",
    "ohttp-request-extend": "ohttp: refused with 400", "ohttp-request-replay": "status 409", "ohttp-keyset-header": "ohttp: refused with 422",
    "ohttp-answer-alter": UNOPENED, "ohttp-answer-cut": UNOPENED, "ohttp-answer-extend": UNOPENED, "ohttp-answer-replay": UNOPENED,
    "ohttp-answer-swap": UNOPENED, "ohttp-unsealed": UNSEALED, "ohttp-mislabelled": UNOPENED, "ohttp-500": "ohttp: refused with 500",
    "ohttp-503": "ohttp: refused with 503", "ohttp-422": "ohttp: refused with 422", "ohttp-422-unproven": REPORT_DATA,
}  # fmt: skip


class Liar:
    """The man in the middle before the host, with one lie."""

    def __init__(self, program: Path, upstream: str, lie: str):
        command = [program, "--lie", lie, "--upstream", upstream, "--listen", "127.0.0.1:0"]
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        line = self.child.stdout.readline()
        found = re.search(r" on ([0-9.]+:[0-9]+):", line)
        if found is None:
            self.end()
            raise Malformed(f"{lie}: {line}")
        self.address = found[1]

    def end(self) -> int:
        """0 where nothing was confided to it."""
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.communicate()
        return self.child.returncode


class SealedExamination(Examination):
    def __init__(self, arguments):
        super().__init__(arguments)
        self.server, self.liar, self.keep = arguments.server, arguments.liar, arguments.keep

    def client(self, address: str) -> Sealed:
        return Sealed(address, self.collateral, self.root, self.measurement, lambda: int(time.time()))

    def run(self) -> None:
        status, self.collateral = self.plain("GET", "/v1/collateral")
        self.equal("collateral from the host", status, 200)
        client = self.client(self.server)
        for n in range(2):
            # One key for both.
            self.keep_answer(f"answer-{n}", self.ask(client, client.session.keyset_digest), client)
        self.equal("sealed requests", client.sealed, 2)
        self.inside(client)
        self.judged(client)
        for lie, reason in ({"none": None} | ABOUT_THE_KEY | ABOUT_REQUESTS).items():
            self.lied_to(lie, reason)

    def keep_answer(self, name: str, files: dict[str, bytes], client: Sealed) -> None:
        folder = self.keep / name
        folder.mkdir(parents=True)
        for name, data in (files | {"session.json": client.record()}).items():
            (folder / name).write_bytes(data)

    def inside(self, client: Sealed) -> None:
        """What the enclave must refuse, inside and outside the seal (formats.md section 13)."""
        live = client.exchange("GET", "/v2/health/live")
        self.equal("health, sealed", live.status, 200)
        self.equal("a session, sealed", client.exchange("POST", "/v1/session").status, 421)
        self.equal("a sealed request, sealed", client.exchange("POST", ohttp.TARGET).status, 400)
        self.equal("a field about connections", client.exchange("GET", "/v2/health/live", Connection="close").status, 400)
        keyset = {"Touchstone-Keyset": client.session.keyset_digest.hex()}
        message = bhttp.request("GET", self.server, "/v2/health/live", [], b"")

        def sent(content: bytes, **headers: str) -> tuple[int, int | None]:
            """Statuses outside and inside."""
            sealed, waiting = ohttp.seal(*client.key, content)
            answer = client.post(ohttp.TARGET, ohttp.REQUEST_TYPE, sealed, **keyset | headers)
            return answer.status, bhttp.read_answer(waiting.open(answer.body))[0] if answer.status == 200 else None

        self.equal("padded", sent(message + bytes(100)), (200, 200))
        self.equal("without its end", sent(message.rstrip(b"\0")), (200, 200))
        self.equal("padded with something", sent(message + b"\1"), (200, 400))
        self.equal("no message", sent(b"GET / HTTP/1.1\r\n\r\n"), (200, 400))
        self.equal("an empty message", sent(b""), (200, 400))
        self.equal("for another keyset", sent(message, **{"Touchstone-Keyset": bytes(32).hex()})[0], 422)
        sealed, waiting = ohttp.seal(*client.key, message)
        twice = [client.post(ohttp.TARGET, ohttp.REQUEST_TYPE, sealed, **keyset) for _ in range(2)]
        self.equal("twice", [bhttp.read_answer(waiting.open(answer.body))[0] for answer in twice], [200, 409])
        key_id, public = client.key
        sealed, _ = ohttp.seal(key_id ^ 1, public, message)
        self.equal("for another key's id", client.post(ohttp.TARGET, ohttp.REQUEST_TYPE, sealed, **keyset).status, 422)
        sealed, _ = ohttp.seal(key_id, fresh_nonce(), message)
        self.equal("for another key", client.post(ohttp.TARGET, ohttp.REQUEST_TYPE, sealed, **keyset).status, 400)
        self.equal("of another type", client.post(ohttp.TARGET, "application/json", sealed, **keyset).status, 415)

    def judged(self, client: Sealed) -> None:
        """Each piece of the proof is needed."""
        now = int(time.time())

        def refused(what: str, reason: str, answer: bytes = client.proof, nonce: bytes = client.nonce, at: int = now) -> None:
            try:
                ohttp.judge(answer, nonce, self.collateral, self.root, at)
            except Untrue as error:
                self.equal(what, str(error), reason)
            else:
                self.agree(what, False, "accepted")

        def edited(**changes) -> bytes:
            value = jcs.from_file(client.proof)
            for name, change in changes.items():
                value[name] = value[name] | change
            return jcs.to_file(value)

        self.equal("the proof, judged again", ohttp.judge(client.proof, client.nonce, self.collateral, self.root, now), client.session)
        keyset = dict(client.session.keyset)
        keys = bytearray(unb64(keyset.pop("ohttp_keys")))
        refused("no key in the keyset", "ohttp: the keyset has no key", jcs.to_file(jcs.from_file(client.proof) | {"keyset": keyset}))
        keys[10] ^= 1
        refused("one bit of the key", REPORT_DATA, edited(keyset={"ohttp_keys": b64(bytes(keys))}))
        refused("another nonce", NONCE, nonce=fresh_nonce())
        refused("no nonce", NONCE, edited(evidence={"nonce": None}))
        other = fresh_nonce()
        refused("a nonce that was written beside it", REPORT_DATA, edited(evidence={"nonce": other.hex()}), other)
        refused("said to be of a session", "session: evidence of purpose session", edited(evidence={"purpose": "session"}))
        refused("after the keyset's end", "session: outside the keyset's life", at=1 << 40)
        report = bytearray(unb64(jcs.from_file(client.proof)["evidence"]["quote"]))
        report[0x90] ^= 1
        refused("one bit of the measurement", "chain or report: signature", edited(evidence={"quote": b64(bytes(report))}))

    def lied_to(self, lie: str, reason: str | None) -> None:
        """`reason`: why it is refused; None where it must not be."""
        liar, clients = Liar(self.liar, self.server, lie), []

        def ask() -> str | None:
            try:
                client = self.client(liar.address)
                clients.append(client)
                status = client.exchange("GET", "/v2/health/live").status
                return None if status == 200 else f"status {status}"
            except Untrue as error:
                return str(error)

        # Two at the same time are crossed with each other; of two who come one after the other the first may get his own.
        with ThreadPoolExecutor(2 if lie == "ohttp-answer-swap" else 1) as pool:
            found = [asked.result() for asked in [pool.submit(ask) for _ in range(2)]]
        first = None if lie == "ohttp-answer-replay" else reason
        self.equal(lie, found, [first, reason])
        # Nobody was asked twice, and a key that was not proven sealed nothing.
        self.equal(f"{lie}: sealed requests", [client.sealed for client in clients], [1] * (0 if lie in ABOUT_THE_KEY else len(clients)))
        self.equal(f"{lie}: confided nothing", liar.end(), 0)


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--liar", type=Path, required=True, help="the program man-in-the-middle")
    parser.add_argument("--keep", type=Path, required=True, help="folder for what is kept")
    return examine(parser, SealedExamination, "sealed requests")


if __name__ == "__main__":
    sys.exit(main())
