//! The checks of what lies beside a bundle: lists of notices, fetched collateral, records, and files that are only read.

use super::{FixedCheck, check};

const NOTE: &str = "formats §12; C2SP signed-note";
const FETCHED: &str = "docs/collateral.md";

pub(super) static FIXED: &[FixedCheck] = &[
    check(
        "advisories.format",
        "2",
        "The list of notices is a signed note over canonical JSON, within its bounds, and every notice can be evaluated.",
        NOTE,
    ),
    check(
        "advisories.signature",
        "3",
        "The key that you named signed the list of notices.",
        NOTE,
    ),
    check(
        "advisories.version",
        "4",
        "The list of notices is not older than the version that you demand.",
        "formats §12",
    ),
    check(
        "advisories.notice",
        "4",
        "No notice of the list applies to the platform that evidence proves, at the time that the receipt states.",
        "formats §12",
    ),
    check(
        "collateral.format",
        "2",
        "A file of collateral, or what a vendor's service answered, is well-formed and within its bounds. Made by the command.",
        "formats §7; docs/collateral.md",
    ),
    check(
        "collateral.fetch",
        "5",
        "The vendor's service can be reached, and gives what it is asked for. Made by the command.",
        FETCHED,
    ),
    check(
        "collateral.authentic",
        "3",
        "What was fetched is signed by the vendor, and of the platform that it was asked for. Made by the command.",
        FETCHED,
    ),
    check(
        "collateral.validity",
        "5",
        "What was fetched is valid now, and not older than what was fetched before. Made by the command.",
        FETCHED,
    ),
    check(
        "expect.format",
        "2",
        "The record of what was asked (expect.json) is written as `ask` writes it. Made by the command.",
        "docs/cli.md",
    ),
    check(
        "measure.firmware",
        "2",
        "The firmware's metadata say what is measured of it, and a platform would load it as they say. Made by the command.",
        "docs/measure.md",
    ),
    check(
        "measure.kernel",
        "2",
        "The kernel is one that firmware measures as it starts it. Made by the command.",
        "docs/measure.md",
    ),
    check(
        "measure.inputs",
        "2",
        "A file of inputs names everything that is measured, each by its digest. Made by the command.",
        "docs/measure.md",
    ),
    check(
        "measure.event_log",
        "2, 4",
        "The event log is of this firmware and of this boot: its registers and variables are those computed. Made by the command.",
        "docs/measure.md",
    ),
    check(
        "quote.answer",
        "2",
        "What a quote source answers is well-formed, within its bounds, and of the kind that it says. Made by the command (`doctor`).",
        "docs/quote-agent.md; docs/cli.md",
    ),
    check(
        "quote.source",
        "7",
        "Some quote source of this machine gives a quote. Made by the command (`doctor`).",
        "docs/cli.md",
    ),
    check(
        "response.format",
        "2",
        "The record of the answer (response.json) is written as `ask` writes it. Made by the command.",
        "docs/cli.md",
    ),
    check(
        "show.format",
        "2",
        "A file that is to be shown is one that `show` knows, and written as it must be. Made by the command.",
        "docs/cli.md",
    ),
    check(
        "verdict.format",
        "2",
        "A file that is to be explained is a verdict, and does not contradict itself. Made by the command.",
        "docs/cli.md",
    ),
];
