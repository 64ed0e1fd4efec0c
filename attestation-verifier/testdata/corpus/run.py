#!/usr/bin/env python3
"""Gives every case of this corpus to a verifier and compares what it says; README.md says more.

    ./run.py [--only PATTERN] [--accepts CODE,…] [-- COMMAND WITH {placeholders}]
"""

import argparse
import base64
import fnmatch
import json
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from os import cpu_count
from pathlib import Path

HERE = Path(__file__).resolve().parent
OWN = "touchstone appraise {evidence} --policy {policy} --at {at} --json"


def cases(only: str):
    for path in sorted((HERE / "cases").rglob("*.json")):
        name = path.relative_to(HERE / "cases").with_suffix("").as_posix()
        if any(fnmatch.fnmatch(part, only) for part in (name, path.parent.name)):
            yield name, json.loads(path.read_text())


def canonical(value) -> bytes:
    """RFC 8785, for values without fractions."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def places(case: dict, folder: Path) -> dict[str, str]:
    """Writes the case's files; returns what stands for each placeholder."""
    evidence = case["evidence"]
    collateral = evidence.get("collateral") or {}
    files = {
        "evidence": canonical(evidence) + b"\n",
        "quote": base64.b64decode(evidence["quote"]),
        "collateral": canonical(collateral),
        "vek": base64.b64decode(collateral.get("vek", "")),
        "chain": b"".join(map(base64.b64decode, collateral.get("chain", [])[:1])),
        "crl": b"".join(map(base64.b64decode, collateral.get("crls", [])[:1])),
        "event_log": base64.b64decode((evidence.get("event_log") or {}).get("data", "")),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    found = {name: str(folder / name) for name in files}
    at = datetime.strptime(case["at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    roots = case["simulated_roots"]
    return found | {
        "policy": str(HERE / case["policy"]), "roots": str(HERE / roots) if roots else "", "at": case["at"],
        "unix": str(int(at.timestamp())), "report_data": case["report_data"] or "",
    }  # fmt: skip


def run(case: dict, command: list[str] | None, accepts: set[int]) -> str:
    """What is wrong; empty if nothing is."""
    expected = case["expected"]
    with tempfile.TemporaryDirectory() as folder:
        named = places(case, Path(folder))
        if command is None:
            own = [part.format(**named) for part in OWN.split()]
            own += ["--trust-simulated-root", named["roots"]] if named["roots"] else []
            own += ["--report-data", named["report_data"]] if named["report_data"] else []
            done = subprocess.run(own, capture_output=True, stdin=subprocess.DEVNULL)
            said = json.loads(done.stdout or b"{}")
            found = {"verdict": said.get("verdict"), "exit": done.returncode, "deciding": said.get("deciding")}
            return "" if found == expected else f"expected {expected}, found {found}"
        done = subprocess.run([part.format(**named) for part in command], capture_output=True, stdin=subprocess.DEVNULL)
    holds, accepted = expected["exit"] in (0, 6), done.returncode in accepts
    if holds == accepted:
        return ""
    return "REFUSES what holds" if holds else f"ACCEPTS what {expected['deciding']} refuses"


def main() -> int:
    own, command = sys.argv[1:], None
    if "--" in own:
        at = own.index("--")
        own, command = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cases or folders of this name")
    parser.add_argument("--accepts", default="0", metavar="CODES", help="exit codes by which a command of yours accepts")
    arguments = parser.parse_args(own)
    accepts = {int(code) for code in arguments.accepts.split(",")}
    chosen = list(cases(arguments.only))
    if not chosen:
        parser.error(f"no case is named {arguments.only}")
    with ThreadPoolExecutor(cpu_count()) as pool:
        said = list(pool.map(lambda named: run(named[1], command, accepts), chosen))
    wrong, total = Counter(), Counter()
    for (name, case), words in zip(chosen, said):
        about = case["expected"]["deciding"] or "holds"
        total[about] += 1
        if words:
            wrong[about] += 1
            print(f"{name}: {words} ({case['says']})")
    for about in sorted(wrong):
        print(f"  {about}: {wrong[about]} of {total[about]} wrong")
    print(f"{len(chosen) - wrong.total()} of {len(chosen)} cases as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
