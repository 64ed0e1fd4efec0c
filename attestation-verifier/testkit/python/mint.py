#!/usr/bin/env python3
"""Mints bundles that hold and lies about them, as an outside examiner would.

    mint.py -o DIR --template POLICY.toml [--now SECONDS]

POLICY.toml is what `touchstone policy init --tee sev-snp` wrote. DIR gets a folder per case, the
simulated roots, and cases.json, which `run_mutants.py` puts to the `touchstone` command.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

from second_opinion import jcs
from second_opinion.amd import pem
from second_opinion.bundle import Draft
from second_opinion.cases import Case
from second_opinion.digests import sha256
from second_opinion.mutants import catalogue
from second_opinion.npy import write_f32
from second_opinion.policy import edit, expect, strings
from second_opinion.worlds import Worlds


def base_policy(worlds: Worlds) -> dict[str, str]:
    """What the strict template needs before it can accept anything: the caller's own reference values."""
    models = worlds.world("genoa").enclave.models
    return {
        "require": strings("signed"),
        "nonce": expect('"present"'),
        "fresh_seconds": '{ waive = "bundles are minted and kept" }',
        "models": expect(strings(models[0].model_digest.hex())),
        "configs": expect(strings(models[0].config_digest.hex())),
        "snp.measurement": expect(strings(worlds.measurement.hex())),
    }


def changed(given: dict, key: str, honest):
    change = given.get(key, lambda value: value)
    return change(honest) if callable(change) else change


def caller_arguments(case: Case, draft: Draft, folder: Path) -> list[str]:
    """What the caller hands over beside the bundle; files are written next to it."""
    exchange, given, omit, arguments = draft.exchange, case.given, case.given.get("omit", ()), []
    if "request" not in omit:
        (folder / "request.bin").write_bytes(changed(given, "request", exchange.request))
        arguments += ["--request", f"{case.name}/request.bin"]
        arguments += ["--method", changed(given, "method", exchange.method)]
        arguments += ["--path", changed(given, "target", exchange.target)]
        if (length := changed(given, "request_header", exchange.request_header)) is not None:
            arguments += ["--header-length", str(length)]
    if "response" not in omit:
        (folder / "response.bin").write_bytes(changed(given, "response", exchange.response))
        arguments += ["--response", f"{case.name}/response.bin"]
        arguments += ["--status", str(changed(given, "status", exchange.status))]
        if (length := changed(given, "response_header", exchange.response_header)) is not None:
            arguments += ["--response-header-length", str(length)]
    nonce = changed(given, "nonce", draft.nonce.hex() if draft.nonce else None)
    if nonce is not None and "nonce" not in omit:
        arguments += ["--nonce", nonce]
    for side, name, honest in (("inputs", "X", [0.5, -2.0]), ("outputs", "probabilities", [0.25, 0.75])):
        if side in given:
            values = honest if given[side] is True else given[side]
            path = f"{case.name}/{name}.npy"
            write_f32(folder / f"{name}.npy", [1, 2], values)
            arguments += [f"--{side[:-1]}", f"{name}={path}"]
    return arguments


def kept_folder(case: Case, draft: Draft, folder: Path) -> list[str]:
    """The folder that `touchstone ask` would have left."""
    caller_arguments(case, draft, folder)
    exchange, nonce = draft.exchange, draft.nonce.hex() if draft.nonce else None
    expect = {
        "v": "touchstone/expect/1", "method": exchange.method, "target": exchange.target,
        "header_length": exchange.request_header, "model": "digits", "nonce": nonce,
        "require": draft.guarantees(), "request_sha256": sha256(exchange.request).hex(), "asked_at": draft.enclave.now,
    }  # fmt: skip
    info = {"v": "touchstone/response/1", "status": exchange.status, "header_length": exchange.response_header}
    for name, record in (("expect", expect), ("response", info)):
        record |= case.given.get(name + ".json", {})
        (folder / f"{name}.json").write_bytes(jcs.to_file(record))
    for name, change in case.given.get("files", {}).items():
        if change is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(change((folder / name).read_bytes()))
    return ["check", case.name]


def appraisal(case: Case, draft: Draft, folder: Path) -> list[str]:
    """The first evidence object on its own, and the report data that it must be over."""
    evidence = draft.bundle["evidence"][0] | case.given.get("evidence.json", {})
    (folder / "evidence.json").write_bytes(changed(case.given, "file", jcs.to_file(evidence)))
    data = changed(case.given, "report_data", draft.report_data(draft.bundle["evidence"][0]["purpose"]).hex())
    return ["appraise", f"{case.name}/evidence.json", *(["--report-data", data] if data else [])]


def flags(case: Case, draft: Draft, folder: Path) -> list[str]:
    return ["check", f"{case.name}/bundle.json", *caller_arguments(case, draft, folder)]


FORMS = {"flags": flags, "folder": kept_folder, "appraise": appraisal}


def mint(case: Case, worlds: Worlds, template: str, out: Path) -> dict:
    world = worlds.world(case.world)
    nonce = {} if case.nonce == "random" else {"nonce": case.nonce}
    draft = Draft(world.enclave, case.level, case.binary, sequence=case.sequence, hooks=case.hooks, world=world, **nonce)
    folder = out / case.name
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_bytes(draft.build())
    (folder / "policy.toml").write_text(edit(template, base_policy(worlds) | case.policy))
    arguments = FORMS[case.form](case, draft, folder)
    arguments += ["--policy", f"{case.name}/policy.toml"]
    if case.roots:
        arguments += ["--trust-simulated-root", f"roots-{case.roots}.pem"]
    arguments += [*case.arguments, "--json"]
    return {
        "name": case.name,
        "arguments": arguments,
        "exits": list(case.exits),
        "deciding": list(case.deciding),
        "twin": case.twin,
        "observe": case.observe,
    }


def damaged(whole: dict, out: Path, flips: int, seed: int) -> list[dict]:
    """One bit changed, or the end cut off, at `flips` places of an honest bundle; `view` is left alone."""
    chosen, folder = random.Random(seed), out / "damaged"
    folder.mkdir()
    data = (out / whole["name"] / "bundle.json").read_bytes()
    view = range(data.index(b'"view":') + len(b'"view":'), len(data) - 2)
    places = [at for at in range(len(data)) if at not in view]
    cases = []
    for number in range(flips):
        changed_, at, bit = bytearray(data), chosen.choice(places), chosen.randrange(8)
        if number % 5 == 4:
            name, changed_ = f"cut-at-{at}", changed_[:at]
        else:
            name, changed_[at] = f"bit-{at}.{bit}", changed_[at] ^ 1 << bit
        (folder / f"{number}.json").write_bytes(changed_)
        arguments = [f"damaged/{number}.json" if a == f"{whole['name']}/bundle.json" else a for a in whole["arguments"]]
        lie = {"name": f"damaged/{name}", "arguments": arguments, "exits": [2, 3, 4, 5], "deciding": []}
        cases.append(lie | {"twin": whole["name"], "observe": False})
    return cases


def mint_all(out: Path, template: str, now: int, flips: int = 500) -> list[dict]:
    worlds = Worlds(now)
    cases = [mint(case, worlds, template, out) for case in catalogue().cases]
    # The time is the seed: other places in every run, and the same ones again with --now.
    cases += damaged(next(case for case in cases if case["name"] == "quoted"), out, flips, now)
    for name, roots in worlds.roots().items():
        (out / f"roots-{name}.pem").write_bytes(pem(*roots))
    (out / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    return cases


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", dest="out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--template", type=Path, required=True, help="policy written by `touchstone policy init`")
    parser.add_argument("--now", type=int, default=int(time.time()), help="the time of minting, Unix seconds")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    cases = mint_all(arguments.out, arguments.template.read_text(), arguments.now)
    lies = sum(1 for case in cases if case["twin"])
    print(f"{len(cases)} bundles minted, {lies} of them lies")
    return 0


if __name__ == "__main__":
    sys.exit(main())
