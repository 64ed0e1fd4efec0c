"""The same lies put another way: as the folder that `ask` keeps, and as evidence for `appraise`."""

from ..amd import POLICY_DEBUG, POLICY_ONE, POLICY_SMT
from ..cases import Catalogue
from .tools import bundle, flip, reports


def add(cases: Catalogue) -> None:
    cases.holds("folder", form="folder")
    cases.holds("folder-binary", form="folder", binary=True, level="quoted")

    def folder(name, given, exits, deciding=(), twin="folder", **values):
        cases.refused(f"folder/{name}", exits, deciding, twin=twin, given=given, **values)

    request, response = "compare.request", "compare.response"
    folder("request-bit", {"files": {"request.bin": lambda v: flip(v, 3)}}, 3, (request, "expect.request"))
    folder("response-bit", {"files": {"response.bin": lambda v: flip(v, -1)}}, 3, response, twin="folder-binary")
    folder("asked-another-target", {"expect.json": {"target": "/v2/models/wine/infer"}}, 3, request)
    folder("asked-by-another-method", {"expect.json": {"method": "PUT"}}, 3, request)
    folder("asked-another-request", {"expect.json": {"request_sha256": "00" * 32}}, (1, 3), ())
    folder("asked-with-another-header", {"expect.json": {"header_length": 9}}, 3, request, twin="folder-binary")
    folder("asked-for-more", {"expect.json": {"require": ["logged", "quoted", "signed"]}}, 4, "guarantees.required")
    folder("asked-with-another-nonce", {"expect.json": {"nonce": "cd" * 32}}, 4, "receipt.nonce")
    folder("asked-without-nonce", {"expect.json": {"nonce": None}}, 4, ("receipt.nonce", "compare.coverage"))
    folder("answered-otherwise", {"response.json": {"status": 500}}, (3, 4), ())
    folder("answered-with-another-header", {"response.json": {"header_length": 1}}, 3, response)
    folder("response-lost", {"files": {"response.bin": None}}, (1, 4), ())
    folder("request-lost", {"files": {"request.bin": None}}, (1, 4), ())
    folder("bundle-lost", {"files": {"bundle.json": None}}, 1, ())
    folder("record-with-duplicate", {"files": {"expect.json": lambda v: v.replace(b'"method"', b'"method":"GET","method"')}}, (1, 2), ())
    folder("record-with-space", {"files": {"expect.json": lambda v: v.replace(b":", b": ", 1)}}, (1, 2), ())
    folder("record-with-unknown-member", {"expect.json": {"trust": "everything"}}, (1, 2), ())
    folder("record-of-another-version", {"response.json": {"v": "touchstone/response/2"}}, (1, 2), ())
    folder("unsealed", {}, 4, ("guarantees.stated", "log.proof.format"), hooks=bundle(_unsealed))

    cases.holds("appraise", form="appraise")
    cases.holds("appraise-without-report-data", form="appraise", given={"report_data": None})
    cases.holds("appraise-of-another-system", form="appraise", given={"evidence.json": {"purpose": None}})

    def appraise(name, given, exits, deciding=(), **values):
        cases.refused(f"appraise/{name}", exits, deciding, twin="appraise", given=given, **values)

    debug = POLICY_SMT | POLICY_ONE | POLICY_DEBUG
    appraise("report-data-other", {"report_data": "00" * 64}, 3, "evidence.report_data")
    appraise("report-data-short", {"report_data": "00" * 63}, 1)
    appraise("debug", {}, 4, "snp.policy.debug", hooks=reports(policy=debug))
    appraise("root-not-named", {}, 3, ("snp.chain.root", "root.simulated"), roots=None)
    appraise("no-newline", {"file": lambda f: f[:-1]}, 2, "evidence.format")
    appraise("duplicate-member", {"file": lambda f: f.replace(b'"tee"', b'"tee":"sev-snp","tee"')}, 2, "evidence.format")
    appraise("unknown-member", {"evidence.json": {"trusted": "yes"}}, 2, "evidence.format")
    appraise("without-purpose", {"file": lambda f: f.replace(b'"purpose":"checkpoint",', b"")}, 2, "evidence.format")
    appraise("collateral-null", {"evidence.json": {"collateral": None}}, (2, 5), ())
    appraise("tdx", {"evidence.json": {"tee": "tdx"}}, 2, "evidence.format")
    appraise("cut-in-half", {"file": lambda f: f[: len(f) // 2]}, 2, "evidence.format")


def _unsealed(b):
    del b["proof"]
    b["evidence"] = []
