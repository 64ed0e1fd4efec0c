"""Why something was not built, and the exit code that says so."""
from __future__ import annotations

import argparse
import sys

BUILT, CANNOT, INGREDIENT, REFUSED, DIFFERENT, BLIND = 0, 1, 2, 3, 4, 5


class Stop(Exception):
    """Ends the command with a message and an exit code."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


def cannot(message: str) -> Stop:
    """Wrong arguments, a machine that lacks something, a program that failed."""
    return Stop(CANNOT, message)


def ingredient(message: str) -> Stop:
    """An ingredient that cannot be had, or is not the one that is pinned."""
    return Stop(INGREDIENT, message)


def refused(message: str) -> Stop:
    """The image would hold what it must not, or lack what it needs."""
    return Stop(REFUSED, message)


class Say:
    """Progress on stderr: one line for each thing done; on a terminal also how far a download is."""

    def __init__(self, program: str, quiet: bool = False):
        self.program, self.quiet = program, quiet

    def __call__(self, message: str) -> None:
        if not self.quiet:
            print(f"{self.program}: {message}", file=sys.stderr, flush=True)

    def progress(self, name: str, done: int, total: int) -> None:
        if not self.quiet and sys.stderr.isatty():
            end = "\n" if done >= total else ""
            print(f"\r{self.program}:   {name} {done >> 20} of {max(total >> 20, 1)} MiB ", end=end, file=sys.stderr, flush=True)


class Arguments(argparse.ArgumentParser):
    """Wrong arguments end like everything else that cannot be begun."""

    def error(self, message: str):
        self.print_usage(sys.stderr)
        self.exit(CANNOT, f"{self.prog}: {message}\n")
