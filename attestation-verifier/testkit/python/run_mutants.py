#!/usr/bin/env python3
"""Puts minted cases to the `touchstone` command and reports every disagreement.

    run_mutants.py --touchstone PATH [--cases DIR] [--json FILE]

Without --cases the cases are minted into a temporary folder first, with the policy that
`touchstone policy init` writes. A refusal counts only if the honest twin of the lie was accepted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mint

VERDICTS = {0: "holds", 6: "holds", 1: "usage", 2: "malformed", 3: "not-authentic", 4: "refused", 5: "collateral"}
LIMIT = 60  # seconds; nothing within the bounds may take longer


def judge(touchstone: Path, folder: Path, case: dict) -> dict:
    """Runs one case and says what is wrong with the outcome, if anything."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            [touchstone, *case["arguments"]], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return case | {"exit": None, "found": None, "wrong": [f"no verdict within {LIMIT} s"]}
    wrong, verdict = [], {}
    if b"panicked" in done.stderr or done.returncode < 0:
        wrong.append("the command panicked")
    try:
        verdict = json.loads(done.stdout)
    except ValueError:
        wrong.append("stdout is not one JSON object")
    found = verdict.get("deciding")
    if verdict:
        if verdict.get("exit") != done.returncode:
            wrong.append(f"the verdict says exit {verdict.get('exit')}")
        if verdict.get("verdict") != VERDICTS.get(done.returncode):
            wrong.append(f"the verdict says {verdict.get('verdict')!r}")
    if not case["observe"]:
        if done.returncode not in case["exits"]:
            wrong.append(f"exit {done.returncode}, expected {' or '.join(map(str, case['exits']))}")
        elif case["deciding"] and done.returncode != 1 and found not in case["deciding"]:
            wrong.append(f"decided by {found}, expected {' or '.join(case['deciding'])}")
        if case["twin"] and done.returncode in (0, 6):
            wrong.append("A LIE WAS ACCEPTED")
    reason = next((c.get("reason") for c in verdict.get("checks", []) if c.get("id") == found), None)
    seconds = round(time.monotonic() - started, 3)
    return case | {"exit": done.returncode, "found": found, "reason": reason, "wrong": wrong, "seconds": seconds}


def judge_all(touchstone: Path, folder: Path) -> list[dict]:
    cases = json.loads((folder / "cases.json").read_text())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda case: judge(touchstone, folder, case), cases))
    held = {result["name"] for result in results if result["exit"] in (0, 6) and not result["wrong"]}
    for result in results:
        if result["twin"] and result["twin"] not in held:
            result["wrong"].append(f"its twin {result['twin']} was not accepted, so the refusal proves nothing")
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--touchstone", type=Path, required=True, help="the command under judgement")
    parser.add_argument("--cases", type=Path, help="a folder that mint.py made")
    parser.add_argument("--json", type=Path, help="write every result there")
    parser.add_argument("--verbose", action="store_true", help="one line per case")
    arguments = parser.parse_args()
    touchstone = arguments.touchstone.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.cases
        if folder is None:
            policy = subprocess.run([touchstone, "policy", "init", "--tee", "sev-snp"], check=True, capture_output=True)
            folder = Path(temporary)
            mint.mint_all(folder, policy.stdout.decode(), int(time.time()))
        results = judge_all(touchstone, folder)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return report(results, arguments.verbose)


def report(results: list[dict], verbose: bool) -> int:
    disagreements = [result for result in results if result["wrong"]]
    for result in results:
        if result["wrong"]:
            print(f"DISAGREE {result['name']}: {'; '.join(result['wrong'])} [{result['reason']}]")
        elif result["observe"]:
            print(f"open     {result['name']}: exit {result['exit']}, {result['found']} [{result['reason']}]")
        elif verbose:
            print(f"agree    {result['name']}: exit {result['exit']}, {result['found']}")
    lies = sum(1 for result in results if result["twin"] and not result["observe"])
    honest = sum(1 for result in results if not result["twin"])
    print(f"second opinion: {honest} honest bundles, {lies} lies, {len(disagreements)} disagreements")
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
