"""MRTD, RTMR1 and RTMR2 a second time, after the same sources but in the words of those sources rather than of the Rust
code: the operations of the TDX module as a list, QEMU's x86_load_linux on its 8 KiB of header, EDK II's way through a PE
file. Ours, too: no published package computes them. Reads a JSON list of cases, prints a JSON list of digests.
"""

import hashlib
import json
import struct
import sys


def sha384(data):
    return hashlib.sha384(data).digest()


def operations(image, order):
    """TDH.MEM.PAGE.ADD and TDH.MR.EXTEND, one after the other."""
    descriptor = image.rindex(b"TDVF")
    count = struct.unpack_from("<I", image, descriptor + 12)[0]
    for index in range(count):
        offset, _raw, gpa, size, _kind, attributes = struct.unpack_from(
            "<IIQQII", image, descriptor + 16 + 32 * index
        )
        pages = range(0, size, 4096)
        adds = [("MEM.PAGE.ADD", gpa + page, b"") for page in pages]
        extends = [
            [
                ("MR.EXTEND", gpa + page + part, image[offset + page + part :][:256])
                for part in range(0, 4096, 256)
            ]
            if attributes & 1
            else []
            for page in pages
        ]
        if order == "two-pass":
            yield from adds
            for page in extends:
                yield from page
        else:
            for add, page in zip(adds, extends):
                yield add
                yield from page


def mrtd(image, order):
    digest = hashlib.sha384()
    for name, gpa, data in operations(image, order):
        digest.update(name.encode().ljust(16, b"\0"))
        digest.update(struct.pack("<Q", gpa))
        digest.update(bytes(104))
        digest.update(data)
    return digest.hexdigest()


def load_linux(kernel, initrd_size, memory):
    """x86_load_linux of QEMU: what it writes into the header, in its order."""
    header = bytearray(kernel[:8192])
    acpi_data_size = 0x20000 + 0x8000
    lowmem = 0x80000000 if memory >= 0xB0000000 else 0xB0000000
    below_4g = lowmem if memory >= lowmem else memory
    real_addr, cmdline_addr = 0x10000, 0x20000
    if struct.unpack_from("<H", header, 0x236)[0] & (1 << 1):
        initrd_max = 0xFFFFFFFF
    else:
        initrd_max = struct.unpack_from("<I", header, 0x22C)[0]
    if initrd_max >= below_4g - acpi_data_size:
        initrd_max = below_4g - acpi_data_size - 1
    struct.pack_into("<I", header, 0x228, cmdline_addr)
    header[0x210] = 0xB0
    header[0x211] |= 0x80
    struct.pack_into("<H", header, 0x224, cmdline_addr - real_addr - 0x200)
    assert initrd_size < initrd_max
    initrd_addr = (initrd_max - initrd_size) & ~4095
    struct.pack_into("<II", header, 0x218, initrd_addr, initrd_size)
    setup_size = ((header[0x1F1] or 4) + 1) * 512
    patched = min(len(header), setup_size)
    return bytes(header[:patched]) + kernel[patched:]


def measure_pe(image):
    """MeasurePeImageAndExtend of EDK II: steps 4 to 16 of its comments."""
    pe = struct.unpack_from("<I", image, 0x3C)[0]
    optional = pe + 24
    sections = struct.unpack_from("<H", image, pe + 6)[0]
    table = optional + struct.unpack_from("<H", image, pe + 20)[0]
    size_of_headers = struct.unpack_from("<I", image, optional + 60)[0]
    directories = struct.unpack_from("<I", image, optional + 108)[0]
    checksum = optional + 64
    data = image[:checksum]
    certificates = 0
    if directories <= 4:
        data += image[checksum + 4 : size_of_headers]
    else:
        directory = optional + 112 + 8 * 4
        certificates = struct.unpack_from("<I", image, directory + 4)[0]
        data += image[checksum + 4 : directory] + image[directory + 8 : size_of_headers]
    hashed = size_of_headers
    entries = [struct.unpack_from("<II", image, table + 40 * i + 16) for i in range(sections)]
    for size, offset in sorted(entries, key=lambda entry: entry[1]):
        if size:
            data += image[offset : offset + size]
            hashed += size
    if len(image) > certificates + hashed:
        data += image[hashed : len(image) - certificates]
    return sha384(data)


def boot(kernel, initrd, cmdline, header, memory, edk2):
    if header == "patched":
        kernel = load_linux(kernel, len(initrd), memory)
    options = cmdline + " initrd=initrd" if edk2 == "202411" else "initrd=initrd " + cmdline
    registers = {1: bytes(48), 2: bytes(48)}
    for register, digest in [
        (1, measure_pe(kernel)),
        (1, sha384(b"Calling EFI Application from Boot Option")),
        (1, sha384(struct.pack("<I", 0))),
        (2, sha384((options + "\0").encode("utf-16-le"))),
        (2, sha384(initrd)),
        (1, sha384(b"Exit Boot Services Invocation")),
        (1, sha384(b"Exit Boot Services Returned with Success")),
    ]:
        registers[register] = sha384(registers[register] + digest)
    return [registers[1].hex(), registers[2].hex()]


def case(case):
    if "firmware" in case:
        return [mrtd(bytes.fromhex(case["firmware"]), case["order"])]
    return boot(
        bytes.fromhex(case["kernel"]),
        bytes.fromhex(case["initrd"]),
        case["cmdline"],
        case["header"],
        case["memory"],
        case["edk2"],
    )


print(json.dumps([case(one) for one in json.load(sys.stdin)]))
