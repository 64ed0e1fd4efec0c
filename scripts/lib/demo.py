"""The demonstration that scripts/demo runs once everything is built. Standard library alone.

Each outcome is asserted: the exit code of `touchstone check`, and for a refusal the check that decided it.
"""

import hashlib
import http.client
import http.server
import json
import os
import shutil
import struct
import sys
import threading
import time
import urllib.request
from pathlib import Path

from stack import ROOT, Failed, Stack, binary, die, say, touchstone, verdict

sys.path.insert(0, str(ROOT / "attestation-verifier" / "testkit" / "python"))
from second_opinion import digests, jcs, npy, policy  # noqa: E402

DEMO = ROOT / "target" / "demo"
DATA = ROOT / "enclave" / "tests" / "data"
DIGITS, TABULAR = "digits_cnn", "wine_rf"
LABELS = {TABULAR: ("barolo", "grignolino", "barbera")}
QUOTE_MS = 60  # slow enough that one can watch a receipt grow


class Demo:
    def __init__(self):
        self.outcomes: list[tuple[str, bool]] = []
        self.started = time.monotonic()
        self.root = DEMO / "genuine" / "platform" / "root.pem"

    # judging

    def check(self, folder: Path, *options, policy_file="policy.toml", simulated=True) -> dict:
        root = ["--trust-simulated-root", self.root, "--expect-simulated"] if simulated else []
        done = touchstone("check", folder, "--policy", DEMO / policy_file, *root, "--json", *options)
        found = verdict(done)
        (folder / "verdict.json").write_text(json.dumps(found, indent=1) + "\n")
        if found["exit"] != done.returncode:
            raise Failed(f"the verdict says exit {found['exit']}, the command's was {done.returncode}")
        return found

    def accepted(self, what: str, folder: Path) -> None:
        found = self.check(folder)
        fine = found["exit"] == 0 and {"logged", "signed"} <= set(found["achieved"])
        self.outcomes.append((what, fine))
        simulated = ", SIMULATED platform" if found["simulated"] else ""
        words = f"holds: {' '.join(found['achieved'])}{simulated}; compared: {' '.join(found['covers'])}"
        say(f"      check, offline: {words if fine else self.explain(found)}")

    def refused(self, what: str, folder: Path, exit_code: int, deciding: tuple[str, ...], **options) -> None:
        found = self.check(folder, **options)
        fine = found["exit"] == exit_code and found.get("deciding") in deciding
        self.outcomes.append((what, fine))
        say(f"  {what}\n      exit {found['exit']}, decided by {self.explain(found)}")
        if not fine:
            say(f"      UNEXPECTED: should be exit {exit_code}, decided by {' or '.join(deciding)}")

    def explain(self, found: dict) -> str:
        deciding = next((c for c in found["checks"] if c["id"] == found.get("deciding")), {})
        reason = deciding.get("reason") or ""
        if not reason and "expected" in deciding:
            reason = f"expected {deciding['expected']}, found {deciding['found']}"
        return f"{found.get('deciding')}: {reason[:160]}"

    # asking

    def ask(self, url: str, model: str, input_name: str, row: Path, folder: Path, *options, quiet=False) -> list[float]:
        """Asks through the command, shows how the receipt grows, returns the answer's probabilities."""
        started = time.monotonic()
        done = touchstone("ask", url, model, "--input", f"{input_name}={row}", "--policy", DEMO / "policy.toml",
                          "-o", folder, *options)  # fmt: skip
        if not quiet:
            say("".join(f"      {line}\n" for line in done.stderr.splitlines()), end="")
            say(f"      complete after {1000 * (time.monotonic() - started):.0f} ms")
        if done.returncode:
            raise Failed(f"touchstone ask ended with {done.returncode}: {done.stdout}{done.stderr}".strip())
        return outputs(folder)

    def question(self, stack: Stack, model: str, input_name: str, number: int, encoding: str) -> Path:
        """Asks about one held-out row, and judges what came."""
        row, label = held_out(model, number)
        folder = DEMO / "answers" / f"{model}-{number}-{encoding}"
        say(f"\n  {model}, held-out row {number}, sent as {encoding}")
        flag = ["--json-encoding"] if encoding == "json" else []
        answer = self.ask(stack.url, model, input_name, row, folder, "--require", "logged quoted signed", *flag)
        names = LABELS.get(model)
        best = max(range(len(answer)), key=answer.__getitem__)
        say(f"      answer: {names[best] if names else best} ({answer[best]:.3f}); the label says {names[label] if names else label}")
        self.accepted(f"{model}, row {number}, {encoding}", folder)
        return folder

    # the parts

    def grow(self, stack: Stack) -> None:
        """One answer, asked for by hand, whose bundle is judged each time it has more in it."""
        say("\n2. A receipt grows: signed at once, then logged and quoted, as the platform gets to the two quotes")
        row, _ = held_out(DIGITS, 0)
        _, shape, raw = npy.read(row)
        header = json.dumps({
            "inputs": [{"name": "image", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }).encode()  # fmt: skip
        started = time.monotonic()
        request = urllib.request.Request(f"{stack.url}/v2/models/{DIGITS}/infer", data=header + raw, headers={
            "Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(header)),
            "Touchstone": "require=(logged quoted signed)",
        })  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            said = answer.headers["Touchstone"]
        ticket, folder, seen = said.split('id="')[1].split('"')[0], DEMO / "growing", ""
        say(f"      {1000 * (time.monotonic() - started):5.0f} ms  answered; receipt {ticket}, {said.rsplit(', ', 1)[1]}")
        folder.mkdir()
        achieved: set = set()
        while time.monotonic() - started < 30 and achieved != {"logged", "quoted", "signed"}:
            with urllib.request.urlopen(f"{stack.url}/v1/receipts/{ticket}", timeout=60) as answer:
                bundle = answer.read()
            if bundle.decode() == seen:
                time.sleep(0.005)
                continue
            seen, now = bundle.decode(), 1000 * (time.monotonic() - started)
            (folder / "bundle.json").write_bytes(bundle)
            done = touchstone("check", folder / "bundle.json", "--policy", DEMO / "policy-growing.toml", "--receipt-only",
                              "--trust-simulated-root", self.root, "--expect-simulated", "--json")  # fmt: skip
            achieved = set(verdict(done)["achieved"])
            say(f"      {now:5.0f} ms  achieved: {' '.join(sorted(achieved)) or 'nothing yet'} (exit {done.returncode})")
        self.outcomes.append(("a receipt grows to logged, quoted and signed", done.returncode == 0 and len(achieved) == 3))

    def refusals(self, stack: Stack, other: Stack, honest: Path, wine: Path) -> None:
        say("\n4. Lies, each of them refused")

        lie = copied(honest, "one-changed-output-bit")
        flip(lie / "response.bin")
        self.refused("one changed bit in the output", lie, 3, ("compare.response",))

        self.refused("a genuine answer, but of another model than the policy names", copied(wine, "another-model"), 4,
                     ("receipt.model",), policy_file="policy-digits-only.toml")  # fmt: skip

        lie = copied(honest, "another-models-answer")
        for name in ("response.bin", "response.json", "bundle.json"):
            shutil.copyfile(wine / name, lie / name)
        self.refused("another model's answer in place of this one's", lie, 3, ("compare.request",))

        row, _ = held_out(DIGITS, 1)
        lie = DEMO / "refusals" / "another-measurement"
        self.ask(other.url, DIGITS, "image", row, lie, quiet=True)
        self.refused("an enclave of another measurement, on a genuine (simulated) platform", lie, 4, ("snp.measurement",))

        lie = DEMO / "refusals" / "stripped-guarantee"
        with StrippingRelay(stack.url) as relay:
            self.ask(relay.url, DIGITS, "image", row, lie, "--require", "logged signed", quiet=True)
        self.refused("a host that strips `logged` out of the question", lie, 4, ("guarantees.required",))

        lie = copied(honest, "somebody-elses-nonce")
        self.ask(stack.url, DIGITS, "image", row, DEMO / "answers" / "asked-again", quiet=True)
        for name in ("response.bin", "response.json", "bundle.json"):
            shutil.copyfile(DEMO / "answers" / "asked-again" / name, lie / name)
        self.refused("the same question's answer, to somebody else's nonce", lie, 4, ("receipt.nonce",))

        lie = copied(honest, "without-its-seal")
        bundle = jcs.from_file((lie / "bundle.json").read_bytes())
        del bundle["proof"]
        bundle["evidence"] = [item for item in bundle["evidence"] if item["purpose"] != "checkpoint"]
        (lie / "bundle.json").write_bytes(jcs.to_file(bundle))
        self.refused("a bundle without its seal", lie, 4, ("guarantees.stated",))

        lie = copied(honest, "without-the-simulated-root")
        self.refused("a simulated bundle, without naming its root", lie, 3, ("root.simulated", "snp.chain.root"), simulated=False)

    def policies(self) -> None:
        """The strict template, and the few values that are the caller's own to fill in."""
        done = touchstone("policy", "init", "--tee", "sev-snp", "-o", DEMO / "template.toml")
        if done.returncode:
            raise Failed(f"touchstone policy init: {done.stderr}")
        template = (DEMO / "template.toml").read_text()
        models = {name: model_digest(name) for name in (DIGITS, TABULAR)}
        edits = {
            "snp.measurement": policy.expect(policy.strings(self.measurement)),
            "models": policy.expect(policy.strings(*models.values())),
        }
        say("   touchstone policy init --tee sev-snp, and two lines of our own:")
        for key, value in edits.items():
            say(f"      {key} = {value if len(value) < 90 else value[:86] + ' …'}")
        (DEMO / "policy.toml").write_text(policy.edit(template, edits))
        only = edits | {"models": policy.expect(policy.strings(models[DIGITS]))}
        (DEMO / "policy-digits-only.toml").write_text(policy.edit(template, only))
        growing = edits | {"require": policy.strings("signed"), "nonce": '{ waive = "this question carries none" }'}
        (DEMO / "policy-growing.toml").write_text(policy.edit(template, growing))

    def run(self) -> int:
        fresh(DEMO)
        # A simulated platform measures nothing: it is told. Told the digest of the enclave's program, it says
        # what a launch measurement would be about.
        self.measurement = hashlib.sha384(binary("enclave").read_bytes()).hexdigest()
        stranger = hashlib.sha384(b"another program").hexdigest()
        say("1. A SIMULATED SEV-SNP platform, an enclave and an untrusted host, on loopback")
        with Stack(DEMO / "genuine", DATA / "models", measurement=self.measurement, latency_ms=QUOTE_MS, keys=DEMO / "keys") as stack:
            say(f"   after {self.elapsed()}: {stack.url} is ready; the platform takes {QUOTE_MS} ms for a quote")
            self.policies()
            self.grow(stack)
            say("\n3. Questions about rows that no model was trained on, each answer judged offline")
            honest = self.question(stack, DIGITS, "image", 1, "binary")
            self.question(stack, DIGITS, "image", 2, "json")
            wine = self.question(stack, TABULAR, "X", 0, "binary")
            self.question(stack, TABULAR, "X", 1, "json")
            with Stack(DEMO / "other", DATA / "models", measurement=stranger, latency_ms=5, keys=DEMO / "keys") as other:
                self.refusals(stack, other, honest, wine)
        return self.summary()

    def elapsed(self) -> str:
        return f"{time.monotonic() - self.started:.1f} s"

    def summary(self) -> int:
        wrong = [what for what, fine in self.outcomes if not fine]
        say(f"\n{len(self.outcomes) - len(wrong)} of {len(self.outcomes)} outcomes as expected, in {self.elapsed()}.")
        if wrong:
            say("Not as expected:\n  " + "\n  ".join(wrong))
            return 1
        shown = DEMO.relative_to(ROOT)
        say(
            "What happened: an enclave answered questions and signed a receipt for each answer with a key that exists\n"
            "only in its memory; quotes of the (simulated) platform bind that key, and the log of all receipts, to the\n"
            "enclave's measurement. The host in between stored everything and could forge nothing: each of its lies was\n"
            "refused, with the reason. A real platform would differ in one thing: its root is AMD's, and nobody has to\n"
            "name it.\n"
            f"All of it lies in {shown}/. To judge an answer again, at any time, offline:\n"
            f"  {os.path.relpath(binary('touchstone'))} check {shown}/answers/{DIGITS}-1-binary --policy {shown}/policy.toml \\\n"
            f"      --trust-simulated-root {self.root.relative_to(ROOT)}"
        )
        return 0


class StrippingRelay:
    """A host that lies: it takes `logged` out of what the caller asks for, and passes the rest on."""

    def __init__(self, url: str):
        upstream = url.removeprefix("http://")

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                for name in headers:
                    if name.lower() == "touchstone":
                        headers[name] = headers[name].replace("logged ", "")
                connection = http.client.HTTPConnection(upstream, timeout=60)
                connection.request(self.command, self.path, body or None, headers)
                answer = connection.getresponse()
                data = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                connection.close()

            do_GET = do_POST = relay

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def fresh(folder: Path) -> None:
    """Empties the demonstration's own folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("answers", "refusals", "rows"):
        (folder / name).mkdir(parents=True)


def copied(folder: Path, name: str) -> Path:
    target = DEMO / "refusals" / name
    shutil.copytree(folder, target)
    return target


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x01
    path.write_bytes(data)


def held_out(model: str, number: int) -> tuple[Path, int]:
    """One held-out row as a file of its own, and its label."""
    descr, shape, raw = npy.read(DATA / "held-out" / f"{model}_x.npy")
    size = len(raw) // shape[0]
    row = DEMO / "rows" / f"{model}-{number}.npy"
    npy.write(row, descr, [1, *shape[1:]], raw[number * size : (number + 1) * size])
    _, _, labels = npy.read(DATA / "held-out" / f"{model}_y.npy")
    return row, int.from_bytes(labels[number * 8 : number * 8 + 8], "little")


def model_digest(model: str) -> str:
    """Hashed from our own copy of the files: a reference value never comes from the server it is about."""
    folder = DATA / "models" / model / "1"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "settings.toml"]
    described = [(str(p.relative_to(folder)), digests.sha256(p.read_bytes()), p.stat().st_size) for p in files]
    return digests.model_digest(described).hex()


def outputs(folder: Path) -> list[float]:
    """The probabilities in the answer, from JSON or from the binary extension."""
    info, body = json.loads((folder / "response.json").read_text()), (folder / "response.bin").read_bytes()
    length = info["header_length"]
    head, tail = (json.loads(body), b"") if length is None else (json.loads(body[:length]), body[length:])
    at = 0
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        data, at = tail[at : at + size], at + size
        if output["name"] == "probabilities":
            return output["data"] if size == 0 else list(struct.unpack(f"<{size // 4}f", data))
    raise Failed("the answer has no output named probabilities")


if __name__ == "__main__":
    os.chdir(ROOT)
    try:
        sys.exit(Demo().run())
    except (Failed, OSError) as error:
        die(f"scripts/demo: {error}")
