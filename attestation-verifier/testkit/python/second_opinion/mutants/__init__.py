"""The catalogue of honest bundles and of lies about them, by what they attack."""

from ..cases import Catalogue
from . import caller, encodings, forms, honest, log, platform, receipts


def catalogue() -> Catalogue:
    cases = Catalogue()
    for group in (honest, encodings, receipts, log, platform, caller, forms):
        group.add(cases)
    names = [case.name for case in cases.cases]
    if len(set(names)) != len(names):
        raise ValueError("two cases of one name")
    return cases
