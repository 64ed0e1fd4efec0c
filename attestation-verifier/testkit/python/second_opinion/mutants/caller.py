"""The caller's side: what it asked, what it got, what it demands, and what its policy pins."""

from .. import receipt
from ..cases import Catalogue
from .honest import WITHOUT_NONCE
from .tools import bundle, claim, flip


def add(cases: Catalogue) -> None:
    def bad(name, given, exits, deciding=(), **values):
        cases.refused(f"caller/{name}", exits, deciding, given=given, **values)

    request, response = "compare.request", "compare.response"
    bad("request-bit", {"request": lambda v: flip(v, 5)}, 3, request)
    bad("request-longer", {"request": lambda v: v + b" "}, 3, request)
    bad("request-empty", {"request": lambda v: b""}, 3, request)
    bad("response-bit", {"response": lambda v: flip(v, -3)}, 3, response)
    bad("response-bit-in-binary-output", {"response": lambda v: flip(v, -1)}, 3, response, twin="logged-binary")
    bad("response-of-another-model", {"response": lambda v: v.replace(b"digits", b"wine__")}, 3, response)
    bad("response-cut", {"response": lambda v: v[:-1]}, 3, response)
    bad("method", {"method": "PUT"}, 3, request)
    bad("method-lower-case", {"method": "post"}, 3, request)
    bad("target-of-another-model", {"target": "/v2/models/wine/infer"}, 3, request)
    bad("target-with-version", {"target": "/v2/models/digits/versions/1/infer"}, 3, request)
    bad("target-with-query", {"target": "/v2/models/digits/infer?x=1"}, 3, request)
    bad("status", {"status": 201}, 3, response)
    bad("request-header-length", {"request_header": 1}, 3, request)
    bad("request-header-length-shifted", {"request_header": lambda v: v - 1}, 3, request, twin="logged-binary")
    bad("request-header-length-left-out", {"request_header": None}, 3, request, twin="logged-binary")
    bad("response-header-length-left-out", {"response_header": None}, 3, response, twin="logged-binary")
    bad("response-header-length-shifted", {"response_header": lambda v: v + 1}, 3, response, twin="logged-binary")
    bad("inputs-other", {"inputs": [3.0, 4.0]}, 3, "compare.inputs", twin="tensors-compared")
    bad("outputs-other", {"outputs": [0.75, 0.25]}, 3, "compare.outputs", twin="tensors-compared")

    coverage = ("compare.coverage",)
    bad("nothing-compared", {"omit": ("request", "response")}, 4, coverage)
    bad("request-alone", {"omit": ("response",)}, 4, coverage)
    bad("response-alone", {"omit": ("request",)}, 4, coverage)
    bad("nonce-not-given", {"omit": ("nonce",)}, 4, (*coverage, "receipt.nonce"))
    bad("opening-of-request-dropped", {}, 4, (*coverage, request), hooks=bundle(lambda b: b["openings"].pop("request")))
    bad("opening-of-response-dropped", {}, 4, (*coverage, response), hooks=bundle(lambda b: b["openings"].pop("response")))
    bad("openings-stripped", {}, 4, (*coverage, request, response), hooks=bundle(lambda b: b["openings"].clear()))
    bad("openings-absent", {}, (2, 4), (), hooks=bundle(lambda b: b.pop("openings")))

    bad("somebody-elses-nonce", {"nonce": "ab" * 32}, 4, "receipt.nonce")
    bad("nonce-cut", {"nonce": lambda v: v[:-2]}, 4, "receipt.nonce")
    bad("nonce-given-receipt-has-none", {"nonce": "ab" * 32}, 4, "receipt.nonce", twin="without-nonce")
    bad("nonce-waived-but-given-and-other", {"nonce": "ab" * 32}, 4, "receipt.nonce", policy=WITHOUT_NONCE["policy"])
    bad("demands-quoted", {}, 4, "guarantees.required", arguments=("--require", "quoted"))
    bad("demands-logged-of-signed", {}, 4, "guarantees.required", twin="signed", arguments=("--require", "logged"))
    bad("demands-proven", {}, (1, 4), (), arguments=("--require", "proven"))
    bad("stated-stripped-to-signed", {}, 4, "guarantees.required", twin="signed", arguments=("--require", "logged signed"))
    bad("policy-requires-quoted", {}, 4, "guarantees.required", policy={"require": '["logged", "quoted", "signed"]'})

    zeros = "0" * 64
    bad("model-not-pinned", {}, 4, "receipt.model", policy={"models": f'{{ expect = ["{zeros}"] }}'})
    bad("config-not-pinned", {}, 4, "receipt.config", policy={"configs": f'{{ expect = ["{zeros}"] }}'})
    bad("measurement-not-pinned", {}, 4, "snp.measurement", policy={"snp.measurement": f'{{ expect = ["{"0" * 96}"] }}'})
    bad("chip-not-pinned", {}, 4, "snp.chip_id", policy={"snp.chip_id": f'{{ expect = ["{"0" * 128}"] }}'})
    bad("waiver-ran-out", {}, 4, "snp.measurement", policy={"snp.measurement": '{ waive = "for a day", until = "2020-01-01" }'})
    bad("other-model-of-the-catalog", {}, 4, "receipt.model", hooks={"claims": _second_model})
    bad("model-of-one-config-of-another", {}, (3, 4), (), hooks={"claims": _mixed})

    bad("unknown-option", {}, 1, (), arguments=("--trust-everything",))
    bad("require-misspelt", {}, 1, (), arguments=("--require", "loged"))
    bad("at-not-a-time", {}, 1, (), arguments=("--at", "yesterday"))
    bad("policy-without-a-check", {}, 1, (), policy={"snp.policy.debug": None})
    bad("policy-with-an-unknown-check", {}, 1, (), policy={"+snp.policy.debugging": "{ expect = false }"})
    bad("policy-waives-without-reason", {}, 1, (), policy={"snp.vmpl": '{ waive = "" }'})
    bad("policy-waives-and-expects", {}, 1, (), policy={"snp.vmpl": '{ expect = [0], waive = "both" }'})
    bad("policy-of-wrong-type", {}, 1, (), policy={"snp.policy.debug": '{ expect = "no" }'})
    bad("policy-empty-rule", {}, 1, (), policy={"snp.vmpl": "{ }"})
    bad("policy-waives-a-signature", {}, 1, (), policy={"+snp.signature": '{ waive = "trust me" }'})
    bad("policy-waives-the-root", {}, 1, (), policy={"+snp.chain.root": '{ waive = "trust me" }'})
    bad("policy-version-2", {}, 1, (), policy={"v": '"touchstone/policy/2"'})
    bad("policy-without-answer-key", {}, 1, (), policy={"nonce": None})

    bad("judged-too-late", {}, 5, (), arguments=("--at", "2099-01-01T00:00:00Z"))
    bad("judged-too-early", {}, 5, (), arguments=("--at", "2001-01-01T00:00:00Z"))
    cases.open("caller/kept-openings-of-outputs-alone", given={"omit": ("request", "response")},
               hooks=bundle(lambda b: [b["openings"].pop(r) for r in ("request", "response", "inputs")]))  # fmt: skip
    cases.open("caller/payment-claim-alone", hooks=claim(receipt.PAYMENT, ["bound", "a", "b", "c", "d", "1", bytes(32), bytes(32)]))


def _second_model(draft, claims):
    """The answer of another model that the same enclave serves."""
    other = draft.enclave.models[1]
    claims[receipt.MODEL], claims[receipt.CONFIG] = other.model_digest, other.config_digest


def _mixed(draft, claims):
    claims[receipt.CONFIG] = draft.enclave.models[1].config_digest
