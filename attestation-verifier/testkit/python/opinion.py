#!/usr/bin/env python3
"""A second opinion on answers that `touchstone ask` kept.

    opinion.py --root ROOT.pem [--measurement HEX] FOLDER…

Judges each folder from the formats alone, with no code of the project, and exits 1 if it disagrees with any.
"""

import argparse
import json
import ssl
import struct
import sys
import warnings
from pathlib import Path

from second_opinion import Malformed, Untrue, jcs
from second_opinion.digests import tensors_digest
from second_opinion.judge import Caller, Opinion, judge

# AMD numbers its VCEK certificates 0, which RFC 5280 forbids and real ones do all the same.
warnings.filterwarnings("ignore", message="Parsed a serial number which wasn't positive")


CODES = {"FP32": "f", "FP64": "d", "INT64": "q", "INT32": "i", "UINT8": "B", "BOOL": "?"}


def tensors(body: bytes, header_length: int | None, member: str) -> bytes:
    """The tensors digest, from a message of the Open Inference Protocol in either encoding."""
    head, tail = (body, b"") if header_length is None else (body[:header_length], body[header_length:])
    found = []
    for item in json.loads(head)[member]:
        size = item.get("parameters", {}).get("binary_data_size")
        if size is not None:
            data, tail = tail[:size], tail[size:]
        else:
            values = flat(item["data"])
            data = struct.pack(f"<{len(values)}{CODES[item['datatype']]}", *values)
        found.append((item["name"], item["datatype"], item["shape"], data))
    if tail:
        raise Malformed("bytes after the last tensor")
    return tensors_digest(found)


def flat(data) -> list:
    return [y for x in data for y in flat(x)] if isinstance(data, list) else [data]


def opinion(folder: Path, root: bytes) -> Opinion:
    expect, info = (json.loads((folder / name).read_text()) for name in ("expect.json", "response.json"))
    request, response = ((folder / name).read_bytes() for name in ("request.bin", "response.bin"))
    caller = Caller(
        request=(expect["method"], expect["target"], expect["header_length"], request),
        response=(info["status"], info["header_length"], response),
        nonce=bytes.fromhex(expect["nonce"]) if expect["nonce"] else None,
    )
    found = judge((folder / "bundle.json").read_bytes(), root, caller)
    openings = jcs.from_file((folder / "bundle.json").read_bytes())["openings"]
    for role, body, length in (("inputs", request, expect["header_length"]), ("outputs", response, info["header_length"])):
        if openings[role]["digest"] != tensors(body, length, role).hex():
            raise Untrue(f"{role}: other tensors than were opened")
    if not found.achieved >= set(expect["require"]):
        raise Untrue(f"achieved {sorted(found.achieved)}, asked for {expect['require']}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="the root that signs the chain, PEM")
    parser.add_argument("--measurement", help="the launch measurement that every answer must have, hex")
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    root, wrong = ssl.PEM_cert_to_DER_cert(arguments.root.read_text()), 0
    for folder in arguments.folders:
        try:
            found = opinion(folder, root)
            if arguments.measurement and found.measurements != {bytes.fromhex(arguments.measurement)}:
                raise Untrue(f"measurements {[m.hex() for m in found.measurements]}")
            print(f"agree    {folder.name}: {' '.join(sorted(found.achieved))}")
        except (Malformed, Untrue) as error:
            wrong += 1
            print(f"DISAGREE {folder.name}: {error}")
    print(f"second opinion: {len(arguments.folders) - wrong} of {len(arguments.folders)} kept answers hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
