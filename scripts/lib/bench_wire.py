"""Benchmarks of what lies between a caller and the enclave: sessions, the host's relay, the proxy. For bench.py."""

import statistics
from contextlib import ExitStack
from pathlib import Path

import policies
from bench_common import MEASUREMENT, NONCE, WORK, Machine, Workload, build, figures, free_port, fresh, one_model, workloads
from nginx import Nginx
from policies import policy
from stack import Failed, Process, Proxy, Stack, binary, say

SETTINGS = '[limits]\nunacknowledged_bytes = 4294967296\n[log]\nfilter = "warn,enclave::run=info"\n'
KEYS = WORK / "keys"
BULK = 2048  # rows of one question that is about bytes


def small() -> Workload:
    return next(w for w in workloads(True, "digits_mlp_plain") if w.encoding == "binary")


def seconds(arguments) -> float:
    return 1.0 if arguments.quick else 3.0


def rules(folder: Path, workload: Workload, require: str, *bindings: str) -> Path:
    """The strict policy for the benchmarked enclave and this model."""
    model = policies.model_digest(one_model(workload) / workload.model / "1")
    edits = policies.accepting(MEASUREMENT, model) | {"require": policy.strings(*require.split())}
    if bindings:
        edits["binding"] = policy.expect(policy.strings(*bindings))
    path = folder / f"policy-{require.replace(' ', '-')}.toml"
    path.write_text(policy.edit(policies.template(folder), edits))
    return path


def judged(aims: list, aim: str, value: float, most: float | None = None, least: float | None = None, unit: str = "") -> None:
    met = (most is None or value <= most) and (least is None or value >= least)
    aims.append({"aim": aim, "found": value, "met": met})
    say(f"  {'met   ' if met else 'MISSED'}  {aim}: {value:.2f}{unit}")


# sessions


def session(arguments) -> dict:
    """Attested connections beside plain TLS on the same stack, and the first verified answer."""
    build("enclave", "host", "touchstone-testkit", "touchstone-cli", "bench-tools")
    machine = Machine()
    described, rows, aims, workload, limit = machine.announce(), [], [], small(), seconds(arguments)

    def row(name: str, found: dict) -> dict:
        rows.append({"row": name} | found)
        server, client = (1e6 * found[key] / max(1.0, found["per_second"] * found["seconds"]) for key in ("cpu_seconds", "load_cpu_seconds"))
        say(
            f"  {name:54}{found['connections']:>6}{found['per_second']:10,.0f}{server:12,.0f}{client:12,.0f}"
            f"{found['p50_us'] / 1000:9.2f}{found['p99_us'] / 1000:9.2f}"
        )
        return found

    def handshakes(server: str, lines: int, pids: list[int], *options) -> dict:
        return figures(
            "handshakes", "load", "--server", server, "--connections", lines, "--threads", machine.load_threads,
            "--seconds", limit, *(f"--server-pid={pid}" for pid in pids), *options, cpus=machine.load,
        )  # fmt: skip

    say(f"\n{'new connections':56}{'lines':>6}{'each s':>10}{'server µs':>12}{'client µs':>12}{'p50 ms':>9}{'p99 ms':>9}")
    port = free_port()
    plain = Process("handshakes", [
        binary("handshakes"), "serve", "--listen", f"127.0.0.1:{port}", "--threads", machine.threads,
    ], WORK / "handshakes.log", machine.servers)  # fmt: skip
    try:
        plain.wait_for("listening")
        base = [row("plain TLS handshake + GET, rustls", handshakes(f"127.0.0.1:{port}", n, [plain.pid])) for n in (1, 16)]
    finally:
        plain.stop()
    firsts = []
    for latency in (0, 5, 20, 60):
        with Stack(
            fresh("stack"), one_model(workload), measurement=MEASUREMENT, latency_ms=latency, cpus=machine.servers,
            platform_cpus=machine.load, threads=machine.threads, enclave=SETTINGS, keys=KEYS,
        ) as stack:  # fmt: skip
            pids, file = [stack.enclave.pid, stack.host.pid], rules(stack.folder, workload, "logged signed")
            client = ["--server", stack.https, "--policy", file, "--root", stack.root, "--threads", machine.load_threads]
            if latency in (0, 5):
                title = f"quotes of {latency} ms"
                for lines in (1, 16):
                    if latency == 0:
                        row("handshake + session, straight to the enclave, 0 ms", handshakes(stack.tls, lines, pids[:1], "--session"))
                        row("handshake + session, through the host, 0 ms", handshakes(stack.https[8:], lines, pids, "--session"))
                    found = figures(
                        "client-load", *client, "connect", "--connections", lines, "--seconds", limit,
                        *(f"--server-pid={pid}" for pid in pids), cpus=machine.load,
                    )  # fmt: skip
                    whole = row(f"attested: + collateral, judged, {title}", found)
                    if lines == 1 and latency == 0:
                        ratio = whole["p50_us"] / base[0]["p50_us"]
            if latency:
                times = 10 if arguments.quick else 30
                firsts.append((latency, figures(
                    "client-load", *client, "first", "--times", times, *workload.write_body(WORK), cpus=machine.load,
                )))  # fmt: skip
    say(f"\nan attested connection takes {ratio:.1f} times a plain one (p50, one line, quotes of 0 ms)")
    say(f"\n{'first verified answer, logged, through the host':56}{'p50 ms':>9}{'max ms':>9}{'connecting':>12}{'2 quotes + 50':>15}")
    for latency, found in firsts:
        rows.append({"row": f"first verified answer, quotes of {latency} ms"} | found)
        p50, most, connecting = found["p50_us"] / 1000, found["max_us"] / 1000, found["connecting"]["p50_us"] / 1000
        say(f"  {f'quotes of {latency} ms':54}{p50:9.1f}{most:9.1f}{connecting:12.1f}{2 * latency + 50:15}")
    say("\naims")
    for latency, found in firsts:
        aim = f"first verified answer ≤ 2 quotes + 50 ms, quotes of {latency} ms, p50"
        judged(aims, aim, found["p50_us"] / 1000, most=2 * latency + 50, unit=f" ms of {2 * latency + 50}")
    say(
        "\nWhat an attested connection costs beyond plain TLS is one quote, which the platform makes one at a time, and the\n"
        "caller's judgement of its chain; plain HTTP to fetch the collateral is in it, too. `server` is enclave and host."
    )
    return {"machine": described, "rows": rows, "attested_of_plain": ratio, "aims": aims}


# the relay


class Ways:
    """Straight, through the host, through nginx: the same far end, in turns, so that a busy moment hurts all alike."""

    def __init__(self, arguments, rows: list):
        self.rounds = 3 if arguments.quick else 5
        self.rows = rows

    def measure(self, title: str, ways: dict, run, key: str, show) -> dict:
        """`ways`: name to (address, relay's processes); returns each way's median round."""
        taken = {name: [] for name in ways}
        for _ in range(self.rounds):
            for name, (address, pids) in ways.items():
                taken[name].append(run(address, pids))
        found = {name: sorted(rounds, key=lambda f: f[key])[len(rounds) // 2] for name, rounds in taken.items()}
        # Of rounds that lie beside each other, so that what the machine did meanwhile hurts neither side alone.
        for name, rounds in taken.items():
            ratio = statistics.median(one[key] / straight[key] for one, straight in zip(rounds, taken["straight"]))
            found[name]["of_straight"] = ratio
            self.rows.append({"row": title, "way": name} | found[name])
            show(title, name, found[name], ratio)
        return found


def peer(stack: ExitStack, upstream: str, workers: int, cpus: str | None) -> Nginx | None:
    try:
        return stack.enter_context(Nginx(WORK / "nginx", free_port(), upstream, workers, cpus))
    except (Failed, OSError) as error:
        say(f"SKIPPED: nginx's stream module is NOT measured beside the host: {error}")
        return None


def host_alone(stack: ExitStack, upstream: str, threads: int, cpus: str | None) -> tuple[str, Process]:
    """A host whose enclave is any far end: it passes bytes through, whatever they are."""
    folder = fresh("host-alone")
    (folder / "host.toml").write_text(
        f'listen = "tcp://127.0.0.1:0"\nthreads = {threads}\n'
        f'[enclave]\npublic = "tcp://127.0.0.1:{free_port()}"\ncontrol = "tcp://127.0.0.1:{free_port()}"\ntls = "tcp://{upstream}"\n'
        f'[store]\npath = "{folder / "receipts.sqlite"}"\n[log]\nfilter = "error,host=info"\n'
    )
    host = Process("host", [binary("host"), "--config", folder / "host.toml"], folder / "host.log", cpus)
    stack.callback(host.stop)
    return host.wait_for(r'listening address="?(?:tcp://)?([0-9.]+:[0-9]+)')[1], host


def relay(arguments) -> dict:
    """Bytes, then questions over attested TLS: straight, through the host, through nginx."""
    build("enclave", "host", "touchstone-testkit", "bench-tools")
    machine, rows, aims = Machine(), [], []
    described = machine.announce()
    places = {"far end": machine.far, "relay": machine.between, "load": machine.load}
    described["places"] = {name: cpus or "not pinned" for name, cpus in places.items()}
    say("places: " + ", ".join(f"{name} {cpus}" for name, cpus in described["places"].items()))
    ways = Ways(arguments, rows)
    peers = [bytes_through(arguments, machine, ways, aims), questions_through(arguments, machine, ways, aims)]
    say("\naims")
    for aim in aims:
        say(f"  {'met   ' if aim['met'] else 'MISSED'}  {aim['aim']}: {aim['found']:.2f}{aim['beside']}")
    return {"machine": described | {"nginx": peers[0] or "not measured"}, "rows": rows, "aims": aims}


def aim_of(aims: list, what: str, found: dict) -> None:
    ratio, beside = found["host"]["of_straight"], found.get("nginx")
    aims.append({
        "aim": f"{what}: through the host ≥ 0.9 of straight", "found": ratio, "met": ratio >= 0.9,
        "beside": f" (nginx {beside['of_straight']:.2f})" if beside else "",
    })  # fmt: skip


def bytes_through(arguments, machine: Machine, ways: Ways, aims: list) -> str | None:
    between, far = threads_of(machine.between), threads_of(machine.far)
    say(f"\n{'bytes alone':44}{'way':>10}{'conns':>7}{'MB/s':>10}{'trips/s':>10}{'of straight':>13}{'MB/relay CPU-s':>16}{'trips/CPU-s':>13}{'p50 µs':>8}{'p99 µs':>8}")

    def show(title, name, found, ratio):
        trips = found["per_second"] > 0
        rate = f"{'':>10}{found['per_second']:10,.0f}" if trips else f"{found['bytes_per_second'] / 1e6:10,.0f}{'':>10}"
        cost = f"{'':>16}{found['per_cpu_second']:13,.0f}" if trips else f"{found['bytes_per_cpu_second'] / 1e6:16,.0f}{'':>13}"
        cost = " " * 29 if name == "straight" else cost
        late = f"{found['p50_us']:8,}{found['p99_us']:8,}" if trips else ""
        say(f"  {title:42}{name:>10}{found['connections']:>7}{rate}{ratio:13.2f}{cost}{late}")

    with ExitStack() as stack:
        port = free_port()
        end = Process("stream", [binary("stream"), "serve", "--listen", f"127.0.0.1:{port}", "--threads", far], WORK / "stream.log", machine.far)
        stack.callback(end.stop)
        end.wait_for("listening")
        straight = f"127.0.0.1:{port}"
        address, host = host_alone(stack, straight, between, machine.between)
        nginx = peer(stack, straight, between, machine.between)
        targets = {"straight": (straight, []), "host": (address, [host.pid])}
        if nginx:
            targets["nginx"] = (nginx.address, nginx.process.family())
        for title, way, connections, key in (
            ("to the enclave", "up", 1, "bytes_per_second"), ("from the enclave", "down", 1, "bytes_per_second"),
            ("to the enclave", "up", 16, "bytes_per_second"), ("from the enclave", "down", 16, "bytes_per_second"),
            ("512 bytes there and back", "both", 1, "per_second"), ("512 bytes there and back", "both", 64, "per_second"),
        ):  # fmt: skip
            def run(address, pids):
                return figures(
                    "stream", "load", "--server", address, "--way", way, "--connections", connections, "--threads", machine.load_threads,
                    "--seconds", seconds(arguments) / 2, *(f"--server-pid={pid}" for pid in pids), cpus=machine.load,
                )  # fmt: skip

            found = ways.measure(title, targets, run, key, show)
            if way != "both":
                aim_of(aims, f"bytes {title}, {connections} connections", found)
        return nginx.version if nginx else None


def threads_of(cpus: str | None) -> int:
    return len(cpus.split(",")) if cpus else 1


def questions_through(arguments, machine: Machine, ways: Ways, aims: list) -> str | None:
    """Real inference over attested TLS. The enclave has its own core, so that the relay takes nothing from it."""
    one = small()
    many = [(name, datatype, [BULK, *shape[1:]], raw * BULK) for name, datatype, shape, raw in one.inputs]
    chosen = [("one row", one), (f"{BULK} rows", Workload(one.model, one.file, "binary", many, 8))]
    chosen += [("one row", w) for w in workloads(True) if w.model == "minilm"]
    say(f"\n{'questions over attested TLS, signed':44}{'way':>10}{'conns':>7}{'answers/s':>11}{'of straight':>13}{'/CPU-s':>10}{'MB/s':>8}{'p50 ms':>9}{'p99 ms':>9}")

    def show(title, name, found, ratio):
        errors = f"   {found['errors']} ERRORS {found['outcomes']}" if found["errors"] else ""
        say(
            f"  {title:42}{name:>10}{found['connections']:>7}{found['per_second']:11,.0f}{ratio:13.2f}{found['per_cpu_second']:10,.0f}"
            f"{found['mb_per_second']:8.1f}{found['p50_us'] / 1000:9.2f}{found['p99_us'] / 1000:9.2f}{errors}"
        )

    version = None
    for label, workload in chosen:
        body = workload.write_body(WORK)
        size = Path(body[body.index("--body") + 1]).stat().st_size
        with ExitStack() as stack:
            ours = stack.enter_context(Stack(
                fresh("stack"), one_model(workload), measurement=MEASUREMENT, latency_ms=0, cpus=machine.far, host_cpus=machine.between,
                platform_cpus=machine.load, threads=threads_of(machine.far), enclave=SETTINGS, keys=KEYS,
            ))  # fmt: skip
            nginx = peer(stack, ours.tls, threads_of(machine.between), machine.between)
            enclave = ours.enclave.pid
            targets = {"straight": (ours.tls, [enclave]), "host": (ours.https.removeprefix("https://"), [enclave, ours.host.pid])}
            if nginx:
                version, targets["nginx"] = nginx.version, (nginx.address, [enclave, *nginx.process.family()])

            def run(address, pids):
                found = figures(
                    "load", "--session", "--server", address, *body, "--connections", workload.connections, "--threads", machine.load_threads,
                    "--seconds", seconds(arguments), "--header", f"Touchstone: require=(signed), {NONCE}",
                    *(f"--server-pid={pid}" for pid in pids), cpus=machine.load,
                )  # fmt: skip
                answered = found["answers"] * size + found["bytes"]
                return found | {"mb_per_second": answered / found["seconds"] / 1e6}

            title = f"{workload.model}, {label}, {size:,} bytes"
            aim_of(aims, title, ways.measure(title, targets, run, "per_second", show))
    return version


# sealed requests


def ohttp(arguments) -> dict:
    """Sealed requests beside plain ones through the same host: what a request costs the servers and its caller."""
    build("enclave", "host", "touchstone-testkit", "touchstone-cli", "bench-tools")
    machine, workload, rows, aims, limit = Machine(), small(), [], [], seconds(arguments)
    described = machine.announce()
    body = workload.write_body(WORK)
    rounds = 3 if arguments.quick else 5
    with Stack(
        fresh("stack"), one_model(workload), measurement=MEASUREMENT, latency_ms=0, cpus=machine.servers,
        platform_cpus=machine.load, threads=machine.threads, enclave=SETTINGS.replace("[log]", "ohttp_requests = 100000000\n[log]"), keys=KEYS,
    ) as stack:  # fmt: skip
        file = rules(stack.folder, workload, "signed", "none", "ohttp-key", "tls-exporter")
        servers = [f"--server-pid={stack.enclave.pid}", f"--server-pid={stack.host.pid}"]
        ways = (("plain", stack.url), ("sealed", stack.url), ("tls", stack.https))
        say(f"\n{'one small question, signed, unproven':52}{'lines':>6}{'answers/s':>11}{'server µs':>12}{'caller µs':>12}{'p50 ms':>9}{'p99 ms':>9}")
        for lines in (1, 16):
            taken = {way: [] for way, _ in ways}
            # In turns, so that a busy moment hurts all alike.
            for _ in range(rounds):
                for way, url in ways:
                    found = figures(
                        "client-load", "--server", url, "--way", way, "--policy", file, "--root", stack.root, "--threads", machine.load_threads,
                        "ask", "--connections", lines, "--seconds", limit, *servers, *body, cpus=machine.load,
                    )  # fmt: skip
                    count = max(1.0, found["per_second"] * found["seconds"])
                    each = {"server_us": 1e6 * found["cpu_seconds"] / count, "caller_us": 1e6 * found["load_cpu_seconds"] / count}
                    taken[way].append(found | each)
            for way, _ in ways:
                found = sorted(taken[way], key=lambda f: f["server_us"])[rounds // 2]
                rows.append({"row": way, "connections": lines} | found)
                say(
                    f"  {way:50}{lines:>6}{found['per_second']:11,.0f}{found['server_us']:12,.0f}{found['caller_us']:12,.0f}"
                    f"{found['p50_us'] / 1000:9.2f}{found['p99_us'] / 1000:9.2f}"
                )
            beyond = statistics.median(s["server_us"] - p["server_us"] for s, p in zip(taken["sealed"], taken["plain"]))
            aims.append((f"sealed beyond plain, {lines} at once: enclave and host, CPU a request ≤ 150 µs", beyond))
    say("\naims")
    said = []
    for aim, found in aims:
        judged(said, aim, found, most=150, unit=" µs")
    return {"machine": described, "rows": rows, "aims": said}


# the proxy


def proxy(arguments) -> dict:
    """Verified answers through `touchstone proxy`, through the library, and unproven ones in plaintext."""
    build("enclave", "host", "touchstone-testkit", "touchstone-cli", "bench-tools")
    machine, workload, rows, limit = Machine(), small(), [], seconds(arguments)
    described = machine.announce()
    body = workload.write_body(WORK)

    def row(name: str, found: dict, cpu: str) -> dict:
        each = 1e6 * found[cpu] / max(1.0, found["per_second"] * found["seconds"])
        rows.append({"row": name, "caller_cpu_us": each} | found)
        errors = f"   {found['errors']} ERRORS {found['outcomes']}" if found.get("errors") else ""
        say(
            f"  {name:50}{found['connections']:>6}{found['per_second']:11,.0f}{each:13,.0f}"
            f"{found['p50_us'] / 1000:9.2f}{found['p99_us'] / 1000:9.2f}{errors}"
        )
        return found | {"each": each}

    added = []
    for require, latency in (("signed", 0), ("logged signed", 5)):
        with Stack(
            fresh("stack"), one_model(workload), measurement=MEASUREMENT, latency_ms=latency, cpus=machine.servers,
            platform_cpus=machine.load, threads=machine.threads, enclave=SETTINGS, keys=KEYS,
        ) as stack:  # fmt: skip
            say(f"\n{f'{require}, quotes of {latency} ms':52}{'lines':>6}{'answers/s':>11}{'CPU µs each':>13}{'p50 ms':>9}{'p99 ms':>9}")
            file = rules(stack.folder, workload, require)
            asked = ["--header", f"Touchstone: require=({require}), {NONCE}", "--header", "Prefer: wait=10"]
            with Proxy(stack.folder, stack, file, "--connections", 16, cpus=machine.load) as ours:
                for lines in (1, 16):
                    common = ["--connections", lines, "--seconds", limit]
                    threads = ["--threads", machine.load_threads]
                    row("plaintext to the host, unproven, load program's CPU", figures(
                        "load", "--server", stack.url.removeprefix("http://"), *body, *common, *threads, *asked, cpus=machine.load,
                    ), "load_cpu_seconds")  # fmt: skip
                    library = row("the library in one's own program, its CPU", figures(
                        "client-load", "--server", stack.https, "--policy", file, "--root", stack.root, *threads,
                        "steady", *common, *body, cpus=machine.load,
                    ), "load_cpu_seconds")  # fmt: skip
                    found = row("through touchstone proxy, the proxy's CPU", figures(
                        "load", "--server", ours.address, *body, *common, *threads, "--server-pid", ours.process.pid, cpus=machine.load,
                    ), "cpu_seconds")  # fmt: skip
                    added.append((require, lines, (found["p50_us"] - library["p50_us"]) / 1000, found["each"] - library["each"]))
    say("\nwhat the proxy adds to the library (keeping each answer on disk is in it)")
    for require, lines, late, cpu in added:
        say(f"  {require}, {lines} at once: {late:+.2f} ms p50, {cpu:+,.0f} µs CPU an answer")
    return {
        "machine": described, "rows": rows,
        "added": [{"require": r, "connections": n, "p50_ms": late, "cpu_us": cpu} for r, n, late, cpu in added],
    }  # fmt: skip
