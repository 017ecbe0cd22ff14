# SPDX-License-Identifier: GPL-2.0-only
"""Third parties' BPF C files: compiled in one unit with ours, their parameters as numbers by place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pm.errors import PmError


class ThirdParty(NamedTuple):
    """A C file and the names of the parameters that any policy gives it, in their order."""

    name: str
    source: str
    parameters: tuple[str, ...]


def gather(kind: str, named: Iterable[tuple[str, str, Mapping[str, int]]]) -> list[ThirdParty]:
    """Of all policies' (name, source, parameters), each name once, by name.

    Raises PmError where one name stands for two files; ``kind`` is what the file is, in words.
    """
    known: dict[str, ThirdParty] = {}
    for name, source, parameters in named:
        before = known.get(name, ThirdParty(name, source, ()))
        if before.source != source:
            raise PmError(
                f"{kind} {name}: {before.source} and {source} have the same name", "give each its own"
            )
        known[name] = before._replace(parameters=tuple(sorted({*before.parameters, *parameters})))
    return [known[name] for name in sorted(known)]


def compiler_flags(
    kind: str, built_in: Sequence[Path], others: Sequence[ThirdParty], *, zero_place: int
) -> list[str]:
    """That include the files, and say where each parameter lies; ``zero_place`` is one that is always 0.

    Raises PmError for a file that cannot be read or does not know a parameter.
    """
    return [
        *(
            f"-DPARAMETER_{other.name}_{parameter}={place}"
            for other in others
            for parameter, place in _places(kind, other, zero_place).items()
        ),
        *(flag for path in built_in for flag in ("-include", str(path))),
        *(flag for other in others for flag in ("-include", other.source)),
    ]


def digest(flags: Sequence[str], others: Sequence[ThirdParty]) -> str:
    """Of everything that the compiler's output depends on."""
    found = hashlib.sha256(repr(flags).encode())
    for other in others:
        found.update(Path(other.source).read_bytes())
    return found.hexdigest()


def _places(kind: str, other: ThirdParty, zero_place: int) -> dict[str, int]:
    """Of each parameter that the file reads; of those that no policy gives, ``zero_place``."""
    try:
        text = Path(other.source).read_text(errors="replace")
    except OSError as e:
        raise PmError(f"{kind} {other.name}: {other.source}: {e.strerror}", "correct `source`") from e
    known = sorted(set(re.findall(rf"\bPARAMETER\(\w+, {other.name}_(\w+)\)", text)))
    for name in other.parameters:
        if name not in known:
            raise PmError(
                f"{kind} {other.name}: {other.source} has no parameter `{name}`",
                f"it has {', '.join(known) or 'none'}",
            )
    return {name: other.parameters.index(name) if name in other.parameters else zero_place for name in known}
