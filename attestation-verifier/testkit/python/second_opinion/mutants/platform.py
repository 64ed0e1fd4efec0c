"""Lies about the platform: reports re-signed by the genuine key, certificates and CRLs of other hands."""

from cryptography.hazmat.primitives.asymmetric import ec

from .. import amd, der
from ..amd import DAY, POLICY_DEBUG, POLICY_MIGRATE_MA, POLICY_ONE, POLICY_SMT, SIGNED, Tcb
from ..cases import Catalogue
from ..encoding import b64, unb64
from .tools import collateral, flip, items, quotes, reports

OTHER = bytes(range(48))


def add(cases: Catalogue) -> None:
    def bad(name, hooks, exits, deciding=(), **values):
        cases.refused(f"platform/{name}", exits, deciding, hooks=hooks, **values)

    # the report's shape, re-signed: the check refuses, not the signature
    def malformed(name, hooks, deciding="snp.format", **values):
        bad(name, hooks, 2, (deciding, "bundle.format", "evidence.format"), **values)

    for version in (0, 1, 4, 6, 1 << 31):
        malformed(f"version-{version}", reports(version=version))
    malformed("signature-algorithm-0", reports(signature_algo=0))
    malformed("signature-algorithm-2", reports(signature_algo=2))
    malformed("reserved-4c", reports(reserved_4c=1))
    malformed("reserved-18b", reports(reserved_18b=1 << 160))
    malformed("reserved-208", reports(reserved_208=b"\1" + bytes(0x97)))
    malformed("reserved-28f", reports(reserved_208=bytes(0x97) + b"\1"))
    malformed("reserved-flags", reports(flags=1 << 5))
    malformed("reserved-flags-high", reports(flags=1 << 31))
    malformed("policy-bit-17-clear", reports(policy=POLICY_SMT))
    malformed("policy-bit-26", reports(policy=POLICY_SMT | POLICY_ONE | 1 << 26))
    malformed("policy-bit-63", reports(policy=POLICY_SMT | POLICY_ONE | 1 << 63))
    malformed("signature-tail", quotes(_set(SIGNED + 144, 1)))
    malformed("signature-tail-end", quotes(_set(1183, 1)))
    bad("mitigation-vector-in-version-3", reports(launch_mit_vector=1), 2, ("snp.format", "bundle.format", "evidence.format"), twin="report-version-3")
    cases.open("platform/tcb-reserved-byte", hooks=reports(launch_tcb=b"\x20\x02\1\0\0\0\x40\xf0"))
    cases.open("platform/platform-info-high-bit", hooks=reports(platform_info=0x25 | 1 << 40))

    # the report's signature
    signature = "snp.signature"
    bad("report-data-after-signing", quotes(_flip(0x50)), 3)
    bad("measurement-after-signing", quotes(_flip(0x90)), 3, signature)
    for offset in (58, 61, 386, 389, 482, 485, 498, 501):
        bad(f"bit-at-{offset}", quotes(_flip(offset)), (2, 3))
    bad("signature-r", quotes(_flip(SIGNED)), 3, signature)
    bad("signature-s", quotes(_flip(SIGNED + 72)), 3, signature)
    bad("signature-r-high-bytes", quotes(_set(SIGNED + 71, 1)), (2, 3))
    bad("signature-big-endian", quotes(_big_endian), (2, 3))
    bad("signature-zero", quotes(_fill(SIGNED, 144, 0)), 3, signature)
    bad("signature-all-ones", quotes(_fill(SIGNED, 144, 0xFF)), (2, 3))
    bad("signed-by-another-chip", {"evidence": _rekeyed}, 3, signature)

    # what genuine hardware may say and policy refuses
    debug = POLICY_SMT | POLICY_ONE | POLICY_DEBUG
    bad("debug", reports(policy=debug), 4, "snp.policy.debug")
    bad("migrate-ma", reports(policy=POLICY_SMT | POLICY_ONE | POLICY_MIGRATE_MA), 4, "snp.policy.migrate_ma")
    bad("abi-above-firmware", reports(policy=POLICY_SMT | POLICY_ONE | 0xFF00), 4, "snp.policy.abi")
    bad("measurement", reports(measurement=OTHER), 4, "snp.measurement")
    bad("measurement-zero", reports(measurement=0), 4, "snp.measurement")
    bad("host-data", reports(host_data=1), 4, "snp.host_data")
    bad("vmpl-1", reports(vmpl=1), 4, "snp.vmpl")
    bad("vmpl-3", reports(vmpl=3), 4, "snp.vmpl")
    cases.open("platform/vmpl-4", hooks=reports(vmpl=4))
    bad("report-id-ma", reports(report_id_ma=1), 4, "snp.report_id_ma")
    bad("alias-check-not-done", reports(platform_info=amd.PLATFORM_SMT | amd.PLATFORM_ECC), 4, "snp.platform.alias_check")
    bad("version-2", {}, 4, "snp.version", world="genoa2")
    bad("milan-by-default", {}, 4, "snp.product", twin="milan-by-policy", policy={"snp.product": '{ expect = ["Genoa", "Turin"] }'})
    bad("cpuid-of-milan", reports(cpuid=bytes(amd.CPUID["Milan"])), (3, 4), ("snp.product", "snp.vek.product"))
    bad("cpuid-of-turin", reports(cpuid=bytes(amd.CPUID["Turin"])), (2, 3, 4), ())
    bad("cpuid-unknown", reports(cpuid=b"\x17\x31\0"), (2, 3, 4), ("snp.product", "snp.format"))
    bad("cpuid-zero", reports(cpuid=bytes(3)), (2, 3, 4), ("snp.product", "snp.format"))
    bad("masked-chip-id", reports(chip_id=0), (3, 4), ("snp.chip_id.masked", "snp.vek.hwid"))
    bad("masked-chip-id-and-vcek", {"evidence": _with_vcek(hwid=bytes(64), chip_id=0)}, 4, "snp.chip_id.masked")
    bad("guest-svn-beside-mask-flag", reports(flags=1 << 1), (3, 4), ())

    low = Tcb(bootloader=1, tee=0, snp=5, microcode=10)
    lowered = low.bytes("Genoa")
    bad("reported-tcb-low", {"evidence": _with_vcek(tcb=low, reported_tcb=lowered)}, 4, "snp.tcb.reported")
    bad("committed-tcb-low", reports(committed_tcb=lowered), 4, ("snp.tcb.committed", "snp.tcb.provisional"))
    bad("launch-tcb-low", reports(launch_tcb=lowered), 4, "snp.tcb.launch")
    bad("all-tcb-low", {"evidence": _with_vcek(tcb=low, reported_tcb=lowered, committed_tcb=lowered, launch_tcb=lowered, current_tcb=lowered)}, 4, ("snp.tcb.reported", "snp.tcb.committed", "snp.tcb.launch"))
    bad("current-above-committed", reports(current_tcb=Tcb(snp=0x41).bytes("Genoa")), 4, "snp.tcb.provisional")
    bad("current-version-above-committed", reports(current_version=bytes([2, 58, 1, 0])), 4, "snp.tcb.provisional")

    # VCEK
    tcb, hwid = "snp.vek.tcb", "snp.vek.hwid"
    bad("reported-tcb-not-the-vceks", reports(reported_tcb=Tcb(microcode=0xF1).bytes("Genoa")), 3, tcb)
    bad("vcek-of-lower-tcb", {"evidence": _with_vcek(tcb=low)}, 3, tcb)
    bad("turin-fmc-differs", {"evidence": _with_vcek(tcb=Tcb(fmc=0x11))}, 3, tcb, twin="turin")
    bad("chip-id-not-the-vceks", reports(chip_id=b"\7" * 64), 3, hwid)
    bad("chip-id-tail-on-turin", {"evidence": lambda d, e: [d.evidence(x["purpose"], chip_id=d.enclave.platform.hwid + b"\1" + bytes(55)) for x in e]}, (2, 3), (hwid, "snp.format"), twin="turin")
    bad("hwid-short", {"evidence": _with_vcek(edit=lambda x: [*x[:-1], ("4", b"\7" * 32)])}, (2, 3), ("snp.vek.extensions", hwid))
    # A certificate that says a thing twice is malformed as a certificate, before its extensions are read.
    extensions = ("snp.vek.extensions", "snp.collateral", tcb, hwid)
    for suffix in ("3.1", "3.2", "3.3", "3.8", "4"):
        bad(f"extension-{suffix}-missing", {"evidence": _with_vcek(edit=_drop(suffix))}, (2, 3), extensions)
        bad(f"extension-{suffix}-twice", {"evidence": _with_vcek(edit=_twice(suffix))}, (2, 3), extensions)
    bad("extension-not-integer", {"evidence": _with_vcek(edit=_replace("3.8", der.octet_string(b"\xf0")))}, (2, 3), extensions)
    bad("extension-trailing", {"evidence": _with_vcek(edit=_replace("3.8", der.integer(0xF0) + b"\0"))}, (2, 3), extensions)
    bad("extension-long-integer", {"evidence": _with_vcek(edit=_replace("3.8", b"\x02\x03\0\0\xf0"))}, (2, 3), extensions)
    bad("product-name-other", {"evidence": _with_vcek(edit=_replace("2", der.ia5("Milan-B0")))}, (3, 4), ("snp.vek.product", "snp.product"))
    bad("vcek-on-p256", {"evidence": _on_p256}, (2, 3), ())
    bad("vcek-self-signed", {"evidence": _self_signed_vcek}, 3, ("snp.chain.signature", "snp.chain.root"))
    bad("vcek-signed-by-ark", {"evidence": _with_vcek(issuer="SIM-ARK-Genoa", by="ark")}, 3, ("snp.chain.signature", "snp.chain.root"))
    bad("vcek-in-the-future", {"evidence": _with_vcek(not_before=30 * DAY)}, 5, "snp.chain.validity")
    bad("vcek-expired", {"evidence": _with_vcek(not_after=-DAY)}, 5, "snp.chain.validity")
    bad("vcek-outer-algorithm", {"evidence": _with_vcek(outer=amd.pss(True))}, (2, 3), ())
    bad("vcek-outer-sha256", {"evidence": _with_vcek(outer=der.sequence(der.oid("1.2.840.113549.1.1.11"), der.null()))}, (2, 3), ())
    bad("vcek-trailing-bytes", collateral(_edit_vek(lambda v: v + b"\0")), (2, 3), ())
    bad("vcek-cut", collateral(_edit_vek(lambda v: v[:-1])), (2, 3), ())
    bad("vcek-signature-bit", collateral(_edit_vek(lambda v: flip(v, -1))), 3, "snp.chain.signature")
    bad("vcek-is-the-ask", collateral(lambda d, c: c.update(vek=c["chain"][0])), (2, 3), ())
    bad("vcek-garbage", collateral(lambda d, c: c.update(vek=b64(b"garbage"))), (2, 3), ())
    bad("vcek-of-another-chip", collateral(lambda d, c: c.update(vek=b64(d.world.other.platform.vek))), 3)
    bad("signing-key-says-vlek", reports(flags=1 << 2), (3, 4), ("snp.signing_key", "snp.vek.key"))
    bad("signing-key-says-none", reports(flags=7 << 2), (2, 3, 4), ("snp.signing_key", "snp.format", signature))
    bad("signing-key-reserved", reports(flags=3 << 2), (2, 3, 4), ("snp.signing_key", "snp.format"))

    # VLEK
    either = ("snp.signing_key", "snp.vek.key")
    vlek_chain = ("snp.chain.signature", "snp.chain.root", "snp.vek.key")
    bad("vlek-by-default", {}, 4, "snp.signing_key", twin="vlek-by-policy", policy={"snp.signing_key": '{ expect = ["vcek"] }'})
    bad("vlek-of-another-provider", {}, 4, "snp.vlek.csp", twin="vlek-by-policy", policy={"snp.vlek.csp": '{ expect = ["CN=cc-other"] }'})
    bad("vlek-of-no-named-provider", {}, 4, "snp.vlek.csp", twin="vlek-by-policy", policy={"snp.vlek.csp": "{ expect = [] }"})
    bad("vlek-report-says-vcek", reports(flags=0), (3, 4), either, twin="vlek-by-policy")
    bad("vlek-by-the-ask", {"evidence": _vlek(issuer="SIM-SEV-Genoa", by="ask")}, 3, vlek_chain, twin="vlek-by-policy")
    bad("vlek-by-the-ask-with-it", {"evidence": _vlek(issuer="SIM-SEV-Genoa", by="ask", chain="ask")}, 3, vlek_chain, twin="vlek-by-policy")
    bad("vlek-named-vcek", {"evidence": _vlek(subject="SEV-VCEK")}, (2, 3), (), twin="vlek-by-policy")
    bad("vlek-without-provider", {"evidence": _vlek(edit=_drop("5"))}, (2, 3), (), twin="vlek-by-policy")
    bad("vlek-with-two-providers", {"evidence": _vlek(edit=_twice("5"))}, (2, 3), (), twin="vlek-by-policy")
    bad("vlek-tcb", {"evidence": _vlek(edit=_replace("3.8", der.integer(0xF1)))}, 3, tcb, twin="vlek-by-policy")
    asvk_signs = _with_vcek(issuer="SIM-SEV-VLEK-Genoa", by="asvk", chain="asvk")
    bad("vcek-by-the-asvk", {"evidence": asvk_signs}, 3, vlek_chain)

    # chain
    chain, root = "snp.chain.signature", "snp.chain.root"
    bad("ask-missing", collateral(lambda d, c: c.update(chain=[])), (3, 5), ("snp.collateral", chain))
    bad("ask-of-another-hand", {"evidence": _evil_ask}, 3, (chain, root))
    bad("whole-chain-of-another-hand", {"evidence": _evil_chain}, 3, (chain, root))
    bad("root-of-another-hand-in-chain", {"evidence": lambda d, e: _evil_chain(d, e, with_root=True)}, 3, (chain, root))
    bad("root-of-another-hand-beside", collateral(lambda d, c: c["chain"].append(b64(d.world.evil.ark))), 3)
    bad("unused-certificate", collateral(lambda d, c: c["chain"].append(b64(d.world.turin_pki.ask))), 3)
    bad("unused-garbage", collateral(lambda d, c: c["chain"].append(b64(b"\x30\0"))), (2, 3), ())
    bad("ask-twice", collateral(lambda d, c: c["chain"].append(c["chain"][0])), (2, 3), ())
    bad("vcek-in-chain", collateral(lambda d, c: c["chain"].append(c["vek"])), (2, 3), ())
    bad("ask-expired", _ask(not_after=-DAY), 5, "snp.chain.validity")
    bad("ask-not-yet", _ask(not_before=DAY), 5, "snp.chain.validity")
    bad("ask-no-authority", _ask(extensions=[]), 3)
    bad("ask-authority-false", _ask(extensions=[amd.extension("2.5.29.19", der.sequence(), critical=True)]), 3)
    bad("ask-usage-without-signing", _ask(usage=b"\x80"), 3)
    bad("ask-unknown-critical", _ask(critical=True), (2, 3), ())
    bad("ask-signature-bit", collateral(lambda d, c: c.update(chain=[b64(flip(d.enclave.platform.pki.ask, -1))])), 3, chain)
    bad("ask-outer-algorithm", _ask(outer=amd.pss(False)), (2, 3), ())
    bad("ask-trailing-bytes", collateral(lambda d, c: c.update(chain=[b64(d.enclave.platform.pki.ask + b"\0")])), (2, 3), ())
    bad("chain-of-another-product", collateral(lambda d, c: c.update(chain=[b64(d.world.turin_pki.ask)])), 3)
    bad("root-not-named", {}, 3, ("root.simulated", root, chain), roots=None)
    bad("root-of-another-hand-named", {}, 3, (root, chain), roots="other")
    # --expect-simulated belongs to a named root: a usage error without one.
    bad("expected-simulated-without-root", {}, 1, (), roots=None, arguments=("--expect-simulated",))

    # CRL
    crl = "snp.chain.crl"
    missing = (crl, "snp.collateral")
    bad("crl-missing", collateral(lambda d, c: c.update(crls=[])), 5, missing)
    bad("crl-expired", _crl(age=61 * DAY), 5, missing)
    bad("crl-from-the-future", _crl(age=-2 * DAY), 5, missing)
    bad("crl-of-another-hand", _crl(by="evil"), 3, ())
    bad("crl-signed-by-ask", _crl(by="ask"), 3, ())
    bad("crl-revokes-the-ask", _crl(revoked=(0x10002,)), 3, "snp.chain.revoked")
    bad("crl-revokes-the-ask-among-others", _crl(revoked=(1, 0x10002, 99)), 3, "snp.chain.revoked")
    bad("crl-trailing-bytes", collateral(_edit_crl(lambda c: c + b"\0")), (2, 3), ())
    bad("crl-signature-bit", collateral(_edit_crl(lambda c: flip(c, -1))), 3, ())
    bad("crl-garbage", collateral(_edit_crl(lambda c: b"\x30\x03\x02\x01\x01")), (2, 3), ())
    bad("crl-twice", collateral(lambda d, c: c["crls"].append(c["crls"][0])), (2, 3), ())
    bad("crl-stranger-beside", collateral(lambda d, c: c["crls"].append(b64(d.world.turin_pki.crl))), 3, ())
    bad("crl-revoking-beside-a-clean-one", collateral(lambda d, c: c["crls"].append(b64(d.enclave.platform.pki.revocations(revoked=(0x10002,))))), 3, ())
    bad("crl-too-old-for-policy", _crl(age=40 * DAY), 5, (crl, "snp.collateral", "snp.collateral.age"), policy={"collateral_age_seconds": "{ expect = 2592000 }"})
    cases.holds("platform/crl-of-others", hooks=_crl(revoked=(1, 2, 3, 1 << 150)))
    cases.open("platform/crl-holds-the-vceks-serial", hooks=_crl(revoked=(0,)))
    bad("collateral-absent", items(_uncollateral(0)), 5, ())
    bad("vcek-absent", collateral(lambda d, c: c.pop("vek")), 5, ())
    bad("collateral-absent-on-one-of-two", items(_uncollateral(1)), 5, (), twin="quoted")
    bad("one-of-two-debug", {"evidence": lambda d, e: [e[0], d.evidence("receipt", policy=debug)]}, 4, "snp.policy.debug", twin="quoted")
    bad("extra-evidence-debug", {"evidence": lambda d, e: [*e, d.evidence("boot", policy=debug)]}, 4, "snp.policy.debug")
    bad("extra-evidence-unsigned", {"evidence": lambda d, e: [*e, _unsigned(d)]}, 3, signature)


def _uncollateral(index):
    def change(_, evidence):
        del evidence[index]["collateral"]

    return change


def _set(offset, value):
    def change(data):
        data[offset] = value
        return bytes(data)

    return change


def _flip(offset):
    return lambda data: flip(bytes(data), offset)


def _fill(offset, size, value):
    def change(data):
        data[offset : offset + size] = bytes([value]) * size
        return bytes(data)

    return change


def _big_endian(data):
    for start in (SIGNED, SIGNED + 72):
        data[start : start + 72] = data[start : start + 72][::-1]
    return bytes(data)


def _rekeyed(draft, evidence):
    return [draft.evidence(item["purpose"], key=ec.generate_private_key(ec.SECP384R1())) for item in evidence]


def _unsigned(draft):
    item = draft.evidence("boot")
    item["quote"] = b64(flip(unb64(item["quote"]), SIGNED))
    return item


def _vlek(by="asvk", chain="asvk", edit=None, **changes):
    """Every report stands beside a VLEK made anew."""

    def each(draft, evidence):
        platform = draft.enclave.platform
        keys = {"asvk": platform.pki.asvk_key, "ask": platform.pki.ask_key}
        vlek = platform.pki.vlek(platform.key, platform.csp, platform.tcb, edit, issuer_key=keys[by], **changes)
        for item in evidence:
            item["collateral"] |= {"vek": b64(vlek), "chain": [b64(getattr(platform.pki, chain))]}

    return each


def _with_vcek(hwid=None, tcb=None, edit=None, by="ask", not_before=None, not_after=None, key=None, chain="ask", **changes):
    """Every report stands beside a VCEK made anew; `changes` go into certificate or report by name."""

    def each(draft, evidence):
        platform = draft.enclave.platform
        pki = platform.pki
        certificate = {k: v for k, v in changes.items() if k in ("issuer", "outer", "subject")}
        report = {k: v for k, v in changes.items() if k not in certificate}
        if by != "ask":
            certificate["issuer_key"] = pki.ark_key if by == "ark" else pki.asvk_key
        if not_before is not None:
            certificate["not_before"] = pki.now + not_before
        if not_after is not None:
            certificate["not_after"] = pki.now + not_after
        signer = key or platform.key
        vcek = pki.vcek(signer, platform.hwid if hwid is None else hwid, tcb or platform.tcb, edit, **certificate)
        made = [draft.evidence(item["purpose"], **report) for item in evidence]
        for item in made:
            item["collateral"] |= {"vek": b64(vcek), "chain": [b64(getattr(pki, chain))]}
        return made

    return each


def _drop(suffix):
    return lambda extensions: [x for x in extensions if x[0] != suffix]


def _twice(suffix):
    return lambda extensions: [y for x in extensions for y in ([x, x] if x[0] == suffix else [x])]


def _replace(suffix, value):
    return lambda extensions: [(s, value if s == suffix else v) for s, v in extensions]


def _on_p256(draft, evidence):
    """A VCEK on the wrong curve, with a signature that fits it."""
    return _with_vcek(key=ec.generate_private_key(ec.SECP256R1()))(draft, evidence)


def _self_signed_vcek(draft, evidence):
    return _with_evil(draft, evidence, lambda evil, platform: evil.vcek(platform.key, platform.hwid, platform.tcb))


def _with_evil(draft, evidence, vcek):
    made = vcek(draft.world.evil, draft.enclave.platform)
    for item in evidence:
        item["collateral"]["vek"] = b64(made)


def _evil_ask(draft, evidence):
    """An ASK of the right name, made by a stranger, under the genuine root's name."""
    _with_evil(draft, evidence, lambda evil, platform: evil.vcek(platform.key, platform.hwid, platform.tcb))
    for item in evidence:
        item["collateral"]["chain"] = [b64(draft.world.evil.ask)]


def _evil_chain(draft, evidence, with_root=False):
    _evil_ask(draft, evidence)
    for item in evidence:
        item["collateral"]["crls"] = [b64(draft.world.evil.crl)]
        if with_root:
            item["collateral"]["chain"].append(b64(draft.world.evil.ark))


def _ask(not_before=None, not_after=None, extensions=None, usage=None, critical=False, outer=None):
    def change(draft, c):
        pki = draft.enclave.platform.pki
        values = {}
        if not_before is not None:
            values["not_before"] = pki.now + not_before
        if not_after is not None:
            values["not_after"] = pki.now + not_after
        if extensions is not None:
            values["extensions"] = extensions
        if usage is not None:
            values["extensions"] = [
                amd.extension("2.5.29.15", der.bit_string(usage, 7), critical=True),
                amd.extension("2.5.29.19", der.sequence(der.boolean(True)), critical=True),
            ]
        if critical:
            values["extensions"] = [*amd.authority(pki.ask_key), amd.extension("1.2.3.4", b"\5\0", critical=True)]
        if outer is not None:
            values["outer"] = outer
        c["chain"] = [b64(pki.authority_certificate("ask", **values))]

    return collateral(change)


def _crl(by=None, **values):
    def change(draft, c):
        pki = draft.enclave.platform.pki
        key = {"evil": draft.world.evil.ark_key, "ask": pki.ask_key, None: pki.ark_key}[by]
        c["crls"] = [b64(pki.revocations(issuer_key=key, **values))]

    return collateral(change)


def _edit_vek(change):
    return lambda draft, c: c.update(vek=b64(change(draft.enclave.platform.vek)))


def _edit_crl(change):
    return lambda draft, c: c.update(crls=[b64(change(draft.enclave.platform.pki.crl))])
