"""The demonstration that scripts/demo runs once everything is built. Standard library alone.

Each outcome is asserted: the exit code of the command, and for a refusal the check that decided it.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import struct
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import policies
from policies import policy
from stack import ROOT, Failed, Process, Proxy, Stack, binary, die, say, touchstone, verdict

sys.path.insert(0, str(ROOT / "attestation-verifier" / "testkit" / "python"))
from second_opinion import jcs, npy  # noqa: E402

TEES = {"sev-snp": "SEV-SNP", "tdx": "TDX"}
TEE = "sev-snp"
DEMO = ROOT / "target" / "demo"
# By kind of platform: the check of the launch measurement, that of the root, whose the real root is.
MEASUREMENT = {"sev-snp": "snp.measurement", "tdx": "tdx.mrtd"}
CHAIN_ROOT = {"sev-snp": "snp.chain.root", "tdx": "tdx.chain.root"}
VENDOR = {"sev-snp": "AMD", "tdx": "Intel"}
DATA = ROOT / "enclave" / "tests" / "data"
DIGITS, TABULAR = "digits_cnn", "wine_rf"
INPUTS = {DIGITS: "image", TABULAR: "X"}
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

    def accepted(self, what: str, folder: Path, binding="tls-exporter", **options) -> None:
        found = self.check(folder, **options)
        fine = found["exit"] == 0 and {"logged", "signed"} <= set(found["achieved"]) and found["binding"] == binding
        self.outcomes.append((what, fine))
        simulated = ", SIMULATED platform" if found["simulated"] else ""
        words = f"holds: {' '.join(found['achieved'])}{simulated}; compared: {' '.join(found['covers'])}; binding: {found['binding']}"
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

    def ask(self, url: str, model: str, row: Path, folder: Path, *options, policy_file="policy.toml", quiet=False) -> list[float]:
        """Asks through the command, shows how the receipt grows, returns the answer's probabilities."""
        started = time.monotonic()
        done = self.try_to_ask(url, model, row, folder, *options, policy_file=policy_file)
        if not quiet:
            say("".join(f"      {line}\n" for line in done.stderr.splitlines()), end="")
            say(f"      complete after {1000 * (time.monotonic() - started):.0f} ms")
        if done.returncode:
            raise Failed(f"touchstone ask ended with {done.returncode}: {done.stdout}{done.stderr}".strip())
        return outputs(folder)

    def try_to_ask(self, url: str, model: str, row: Path, folder: Path, *options, policy_file="policy.toml"):
        return touchstone("ask", url, model, "--input", f"{INPUTS[model]}={row}", "--policy", DEMO / policy_file,
                          "--trust-simulated-root", self.root, "-o", folder, *options)  # fmt: skip

    def unsent(self, what: str, url: str, exit_code: int, deciding: str, *options, policy_file="policy.toml") -> Path:
        """A question that must not leave: the command refuses, and says which check did."""
        folder = DEMO / "refusals" / what.replace(" ", "-").replace(",", "")
        row, _ = held_out(DIGITS, 1)
        done = self.try_to_ask(url, DIGITS, row, folder, *options, policy_file=policy_file)
        because = re.search(r"^because ([a-z_.]+): (.*)", done.stderr, re.M)
        decided, reason = because.groups() if because else ("", done.stderr.strip())
        kept = {path.name for path in folder.iterdir()} if folder.exists() else set()
        # Exit 1 has no verdict: the command line says what is wrong with it.
        fine = (decided == deciding if deciding else "or --plaintext" in reason) and done.returncode == exit_code
        fine = fine and not kept & {"session.json", "response.bin"}
        self.outcomes.append((what, fine))
        decided = f"decided by {decided}: " if decided else ""
        say(f"  {what}\n      exit {done.returncode}, {decided}{reason[:160]}")
        if not fine:
            say(f"      UNEXPECTED: should be exit {exit_code}, decided by {deciding or 'the command line'}, with nothing sent")
        return folder

    def question(self, stack: Stack, model: str, number: int, encoding: str) -> Path:
        """Asks about one held-out row, and judges what came."""
        row, label = held_out(model, number)
        folder = DEMO / "answers" / f"{model}-{number}-{encoding}"
        say(f"\n  {model}, held-out row {number}, sent as {encoding}")
        flag = ["--json-encoding"] if encoding == "json" else []
        answer = self.ask(stack.https, model, row, folder, "--require", "logged quoted signed", *flag)
        names = LABELS.get(model)
        best = max(range(len(answer)), key=answer.__getitem__)
        say(f"      answer: {names[best] if names else best} ({answer[best]:.3f}); the label says {names[label] if names else label}")
        self.accepted(f"{model}, row {number}, {encoding}", folder)
        return folder

    # the parts

    def grow(self, stack: Stack) -> None:
        """One answer, asked for by hand, whose bundle is judged each time it has more in it."""
        say(
            "\n2. A receipt grows: signed at once, then logged and quoted, as the platform gets to the two quotes\n"
            "      (asked in plain HTTP, by hand: the host could read this question and its answer, and change neither unnoticed)"
        )
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

    def through_the_proxy(self, stack: Stack) -> None:
        say("\n4. touchstone proxy: it proves the enclave, then any unmodified client may ask (here Python's urllib; curl does as well)")
        row, label = held_out(DIGITS, 3)
        with Proxy(DEMO, stack, DEMO / "policy-digits-only.toml") as proxy:
            status, headers, body = plain_question(proxy.address, DIGITS, row)
            answer = body["outputs"][0]["data"]
            best = max(range(len(answer)), key=answer.__getitem__)
            say(f"  {DIGITS}, held-out row 3: status {status}, answer: {best} ({answer[best]:.3f}); the label says {label}")
            say(f"      Touchstone-Verified: {headers['Touchstone-Verified']}")
            ticket = re.search(r'id="([0-9a-f]{32})"', headers["Touchstone-Verified"])[1]
            (kept,) = proxy.keep.glob(f"*/{ticket}")
            self.accepted("an answer that the proxy kept", kept)
            status, _, problem = plain_question(proxy.address, TABULAR, held_out(TABULAR, 2)[0])
            fine = status == 502 and problem["check"] == "receipt.model" and problem["exit"] == 4 and "outputs" not in problem
            self.outcomes.append(("the proxy withholds what its policy does not accept", fine))
            say(f"  {TABULAR}, which this proxy's policy does not name: status {status}, {problem['check']}: {problem['reason'][:110]}")

    def sealed(self, stack: Stack) -> None:
        """One question through the host's own HTTP, and before a host that shows a key of its own."""
        say(
            "\n5. A sealed question (--ohttp, RFC 9458), through the host's plain HTTP: it is encrypted to a key that the enclave proves\n"
            "   to be its own first; the host routes what it cannot read"
        )
        row, label = held_out(DIGITS, 4)
        folder = DEMO / "answers" / f"{DIGITS}-4-sealed"
        answer = self.ask(stack.url, DIGITS, row, folder, "--ohttp", policy_file="policy-sealed.toml")
        best = max(range(len(answer)), key=answer.__getitem__)
        say(f"      answer: {best} ({answer[best]:.3f}); the label says {label}")
        self.accepted("a sealed question's answer", folder, "ohttp-key", policy_file="policy-sealed.toml")
        for lie, what, deciding in (
            ("ohttp-own-keyset", "a host with a key of its own", "evidence.report_data"),
            ("ohttp-stale-nonce", "a host that shows what the enclave proved to somebody else", "session.nonce"),
        ):
            with ManInTheMiddle(lie, stack) as middle:
                self.unsent(what, middle.url.replace("https://", "http://"), 3, deciding, "--ohttp", policy_file="policy-sealed.toml")

    def nothing_sent(self, stack: Stack, other: Stack) -> None:
        say("\n6. Questions that are never sent, because whoever is at the other end does not prove himself on this very connection")
        for lie, what in (
            ("own-certificate", "a man in the middle, who ends TLS under a certificate of his own"),
            ("reflection", "a man in the middle, who shows what the enclave proved to him on his own connection"),
        ):
            with ManInTheMiddle(lie, stack) as middle:
                folder = self.unsent(what, middle.url, 3, "session.tls_key")
            read, size = middle.decrypted(), (folder / "request.bin").stat().st_size
            self.outcomes.append((f"{lie} read no question", 0 < read < size))
            say(f"      of what came he could decrypt {read} bytes, the call for a session; the question, {size} bytes, never left")
        self.unsent("an enclave of another measurement, on a genuine (simulated) platform", other.https, 4, MEASUREMENT[TEE])
        self.unsent("http:// where nobody said --plaintext", stack.url, 1, "")
        with ManInTheMiddle("own-certificate", stack) as middle:
            done = touchstone("proxy", "--listen", "127.0.0.1:0", "--server", middle.url, "--policy", DEMO / "policy.toml", "--keep",
                              DEMO / "kept", "--trust-simulated-root", self.root, "--expect-simulated")  # fmt: skip
        fine = done.returncode == 3 and "because session.tls_key: " in done.stderr
        self.outcomes.append(("a proxy before a man in the middle", fine))
        say(f"  touchstone proxy before the first of them\n      exit {done.returncode}, before it listens")

    def refusals(self, stack: Stack, other: Stack, honest: Path, wine: Path) -> None:
        say("\n7. Lies about answers, each of them refused")

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
        lie = DEMO / "refusals" / "kept-from-another-measurement"
        self.ask(other.https, DIGITS, row, lie, policy_file="policy-other.toml", quiet=True)
        self.refused("an answer of another measurement, kept by somebody whose policy accepts that one", lie, 4, (MEASUREMENT[TEE],))

        lie = DEMO / "refusals" / "stripped-guarantee"
        with ManInTheMiddle("strip-require", stack) as host:
            url = host.url.replace("https://", "http://")
            self.ask(url, DIGITS, row, lie, "--plaintext", "--require", "logged signed", policy_file="policy-plaintext.toml", quiet=True)
        self.refused("a host that strips `logged` out of a question it can read", lie, 4, ("guarantees.required",),
                     policy_file="policy-plaintext.toml")  # fmt: skip

        lie = copied(honest, "somebody-elses-nonce")
        self.ask(stack.https, DIGITS, row, DEMO / "answers" / "asked-again", quiet=True)
        for name in ("response.bin", "response.json", "bundle.json"):
            shutil.copyfile(DEMO / "answers" / "asked-again" / name, lie / name)
        self.refused("the same question's answer, to somebody else's nonce", lie, 4, ("receipt.nonce",))

        lie = copied(honest, "without-its-seal")
        bundle = jcs.from_file((lie / "bundle.json").read_bytes())
        del bundle["proof"]
        bundle["evidence"] = [item for item in bundle["evidence"] if item["purpose"] != "checkpoint"]
        (lie / "bundle.json").write_bytes(jcs.to_file(bundle))
        self.refused("a bundle without its seal", lie, 4, ("guarantees.stated",))

        lie = copied(honest, "without-its-connection")
        (lie / "session.json").unlink()
        self.refused("an answer without the record of its connection", lie, 4, ("session.binding",))

        lie = copied(honest, "without-the-simulated-root")
        self.refused("a simulated bundle, without naming its root", lie, 3, ("root.simulated", CHAIN_ROOT[TEE]), simulated=False)

    def policies(self, stack: Stack) -> None:
        """The strict template, and the few values that are the caller's own to fill in."""
        template = policies.template(DEMO, TEE)
        ours = stack.reference_values()
        theirs = ours | {MEASUREMENT[TEE]: self.stranger}
        models = {name: policies.model_digest(DATA / "models" / name / "1") for name in (DIGITS, TABULAR)}
        edits = policies.expecting(ours, *models.values()) | {"answers": policy.expect(policy.strings("tls-exporter"))}
        say(f"   touchstone policy init --tee {TEE}, and {len(edits)} lines of our own:")
        for key, value in edits.items():
            say(f"      {key} = {value if len(value) < 90 else value[:86] + ' …'}")
        waived = {"answers": '{ waive = "this one was asked in plain HTTP" }'}
        for name, changes in (
            ("policy", {}),
            ("policy-digits-only", policies.expecting(ours, models[DIGITS])),
            ("policy-other", policies.expecting(theirs, models[DIGITS])),
            ("policy-plaintext", waived | policies.IN_PLAIN_SIGHT),
            ("policy-sealed", {key: policy.expect(policy.strings("ohttp-key")) for key in ("binding", "answers")}),
            ("policy-growing", waived | {"require": policy.strings("signed"), "nonce": '{ waive = "this question carries none" }'}),
        ):
            (DEMO / f"{name}.toml").write_text(policy.edit(template, edits | changes))

    def run(self) -> int:
        fresh(DEMO)
        # A simulated platform measures nothing: it is told. Told the digest of the enclave's program, it says
        # what a launch measurement would be about.
        self.measurement = hashlib.sha384(binary("enclave").read_bytes()).hexdigest()
        self.stranger = hashlib.sha384(b"another program").hexdigest()
        say(f"1. A SIMULATED {TEES[TEE]} platform, an enclave and an untrusted host, on loopback")
        shared = {"keys": DEMO / "keys", "tee": TEE}
        with Stack(DEMO / "genuine", DATA / "models", measurement=self.measurement, latency_ms=QUOTE_MS, **shared) as stack:
            say(f"   after {self.elapsed()}: {stack.https} is ready; the platform takes {QUOTE_MS} ms for a quote")
            self.policies(stack)
            self.grow(stack)
            say(
                "\n3. Questions over attested TLS: the enclave is proven on this very connection before the first byte of one is sent.\n"
                "   They are about rows that no model was trained on, and each answer is judged offline"
            )
            honest = self.question(stack, DIGITS, 1, "binary")
            self.question(stack, DIGITS, 2, "json")
            wine = self.question(stack, TABULAR, 0, "binary")
            self.question(stack, TABULAR, 1, "json")
            self.through_the_proxy(stack)
            self.sealed(stack)
            with Stack(DEMO / "other", DATA / "models", measurement=self.stranger, latency_ms=5, **shared) as other:
                self.nothing_sent(stack, other)
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
            "What happened: an enclave proved itself on each connection before it was asked anything, answered, and signed a\n"
            "receipt for each answer with a key that exists only in its memory; quotes of the (simulated) platform bind that\n"
            "key, the connections and the log of all receipts to the enclave's measurement. The host in between passed on what\n"
            "it could not read, stored everything and could forge nothing: each of its lies was refused, with the reason. A\n"
            f"real platform would differ in one thing: its root is {VENDOR[TEE]}'s, and nobody has to name it.\n"
            f"All of it lies in {shown}/. To judge an answer again, at any time, offline:\n"
            f"  {os.path.relpath(binary('touchstone'))} check {shown}/answers/{DIGITS}-1-binary --policy {shown}/policy.toml \\\n"
            f"      --trust-simulated-root {self.root.relative_to(ROOT)}"
        )
        return 0


class ManInTheMiddle:
    """The testkit's, between a caller and a real host."""

    def __init__(self, lie: str, stack: Stack):
        upstream = stack.https.removeprefix("https://")
        command = [binary("man-in-the-middle"), "--lie", lie, "--listen", "127.0.0.1:0", "--upstream", upstream]
        self.process = Process("man-in-the-middle", command, DEMO / f"{lie}.log")
        try:
            self.url = f"https://{self.process.wait_for(r' on ([0-9.]+:[0-9]+): ')[1]}"
        except BaseException:
            self.process.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()

    def decrypted(self) -> int:
        """How many bytes of a client's he could read, once he has ended."""
        return sum(int(count) for count in re.findall(r"^connection \d+: TLS.*, (\d+) bytes of it decrypted$", self.process.text(), re.M))


def plain_question(address: str, model: str, row: Path) -> tuple[int, dict, dict]:
    """What any client of the Open Inference Protocol sends; status, headers and body."""
    _, shape, raw = npy.read(row)
    data = list(struct.unpack(f"<{len(raw) // 4}f", raw))
    body = json.dumps({"inputs": [{"name": INPUTS[model], "shape": shape, "datatype": "FP32", "data": data}]}).encode()
    request = urllib.request.Request(f"http://{address}/v2/models/{model}/infer", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.headers, json.load(refusal)


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
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--tee", choices=TEES, default=TEE, help="the kind of simulated platform [default: %(default)s]")
    TEE = parser.parse_args().tee
    if TEE != "sev-snp":
        DEMO = ROOT / "target" / f"demo-{TEE}"
    try:
        sys.exit(Demo().run())
    except (Failed, OSError) as error:
        die(f"scripts/demo: {error}")
