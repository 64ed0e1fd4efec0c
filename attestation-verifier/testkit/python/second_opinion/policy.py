"""Edits of the policy that `touchstone policy init` writes. Standard library alone."""

import re


def edit(template: str, changes: dict[str, str | None]) -> str:
    """Gives each key its new value (TOML, one line), or removes it where the value is None.

    A key must stand in the policy exactly once: a typing mistake here must not weaken a test. A key
    that is led by `+` is added at the end.
    """
    added = []
    for key, value in changes.items():
        if key.startswith("+"):
            added.append(f'"{key[1:]}" = {value}\n')
            continue
        # TOML keeps a value on one line unless it is an array or a text in triple quotes.
        pattern = re.compile(rf'^(?:"{re.escape(key)}"|{re.escape(key)}) *= *(?:\[[^\]]*\]|\{{[^\n]*\}}|[^\n]*?) *(?:#[^\n]*)?\n', re.M)
        found = pattern.findall(template)
        if len(found) != 1:
            raise KeyError(f"{key} stands {len(found)} times in the policy")
        quoted = f'"{key}"' if "." in key else key
        template = pattern.sub(lambda _: "" if value is None else f"{quoted} = {value}\n", template)
    return template + "".join(added)


def expect(value: str) -> str:
    return f"{{ expect = {value} }}"


def strings(*values: str) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"
