"""Firmware images that are shaped like OVMF's, with several layouts."""

import random
import struct
import uuid

FOOTER = "96b582de-1fb2-45f7-baea-a366c55a082d"
METADATA = "dc886566-984a-4798-a75e-5585a7bf67cc"
HASH_TABLE = "7255371f-3a3b-4b04-927b-1da6efa8d454"
RESET_BLOCK = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
OTHER = "4c2eb361-7d9b-4cc3-8081-127c90d3d294"
MEMORY, SECRETS, CPUID, CAA, HASHES = 1, 2, 3, 4, 16

AMD_SEV = [(0x800000, 0x9000, MEMORY), (0x80A000, 0x3000, MEMORY), (0x80D000, 0x1000, SECRETS), (0x80E000, 0x1000, CPUID),
           (0x811000, 0xF000, MEMORY), (0x810000, 0x1000, HASHES)]  # fmt: skip
WITH_CAA = [*AMD_SEV[:4], (0x80F000, 0x1000, CAA), *AMD_SEV[4:]]
CPUID_FIRST = [(0x10000, 0x1000, CPUID), (0x20000, 0x1000, HASHES), (0x30000, 0x5000, MEMORY), (0x12000, 0x1000, SECRETS)]
NO_HASHES = [(0x800000, 0x9000, MEMORY), (0x80D000, 0x1000, SECRETS), (0x80E000, 0x1000, CPUID), (0x810000, 0x10000, MEMORY)]


def entry(guid: str, data: bytes) -> bytes:
    return data + struct.pack("<H", len(data) + 18) + uuid.UUID(guid).bytes_le


def firmware(size: int, sections: list, hash_table: tuple | None, reset: int, seed: int) -> bytes:
    metadata = b"ASEV" + struct.pack("<III", 16 + 12 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<III", *section) for section in sections)
    table = entry(OTHER, bytes(8)) + entry(METADATA, struct.pack("<I", 0x700))
    table += entry(HASH_TABLE, struct.pack("<II", *hash_table)) if hash_table else b""
    table += entry(RESET_BLOCK, struct.pack("<I", reset))
    # The footer's length is the whole table's.
    table += struct.pack("<H", len(table) + 18) + uuid.UUID(FOOTER).bytes_le
    image = bytearray(random.Random(seed).randbytes(size // 2) + b"\xff" * (size - size // 2))
    image[size - 0x700 : size - 0x700 + len(metadata)] = metadata
    image[size - 32 - len(table) : size - 32] = table
    return bytes(image)
