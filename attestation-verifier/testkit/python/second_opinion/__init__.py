"""A second implementation of the Touchstone formats, written from the specification alone.

It shares no code with the Rust crates: where the two disagree about a byte, one of them has
misread the specification. Only the primitives (Ed25519, RSA, ECDSA) come from a library.
"""


class Malformed(ValueError):
    """Bytes that the specification calls malformed: structure, bounds or a non-canonical form."""


class Untrue(ValueError):
    """Bytes that are well formed and say something that does not hold."""
