"""What an outside examiner would try: bundles that hold, and lies with the refusal each must meet.

Every case names the exit code of policy.md and, where the specification leaves no choice, the check that
decides. `twin` is the honest case that differs from it by the lie alone; the runner refuses to count a
refusal whose twin does not hold.
"""

from dataclasses import dataclass, field

HOLDS_SIMULATED = 6


@dataclass
class Case:
    name: str
    exits: tuple[int, ...]
    deciding: tuple[str, ...] = ()
    twin: str | None = None
    level: str = "logged"
    binary: bool = False
    sequence: int = 1
    world: str = "genoa"
    nonce: object = "random"
    hooks: dict = field(default_factory=dict)  # step of Draft -> change
    policy: dict = field(default_factory=dict)  # policy key -> TOML value
    form: str = "flags"  # how the caller puts it: flags, folder, or appraise
    given: dict = field(default_factory=dict)  # what the caller hands over, changed
    roots: str | None = "own"  # which root the caller names: own, other, all, None
    arguments: tuple[str, ...] = ()
    observe: bool = False  # the specification leaves it open: reported, not judged


class Catalogue:
    def __init__(self):
        self.cases: list[Case] = []

    def holds(self, name: str, exits=HOLDS_SIMULATED, **values) -> None:
        self.cases.append(Case(name, (exits,), **values))

    def refused(self, name: str, exits, deciding=(), twin: str = "logged", **values) -> None:
        exits = (exits,) if isinstance(exits, int) else tuple(exits)
        deciding = (deciding,) if isinstance(deciding, str) else tuple(deciding)
        twin_case = next(case for case in self.cases if case.name == twin)
        for attribute in ("level", "binary", "sequence", "world", "nonce", "form"):
            values.setdefault(attribute, getattr(twin_case, attribute))
        values["hooks"] = twin_case.hooks | values.get("hooks", {})
        values["policy"] = twin_case.policy | values.get("policy", {})
        self.cases.append(Case(name, exits, deciding, twin, **values))

    def open(self, name: str, **values) -> None:
        self.refused(name, (), observe=True, **values)
