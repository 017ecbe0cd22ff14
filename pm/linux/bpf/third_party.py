# SPDX-License-Identifier: Apache-2.0
"""Third parties' BPF C files: compiled as one unit with ours; C has the index of each parameter."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pm.errors import PmError
from pm.linux.bpf.objects import DoesNotCompile, VerifierRefused

# BCC turns the methods of maps into calls of helpers in the main file only (decision 14).
_MAP = re.compile(r"^[ \t]*(BPF_[A-Z0-9_]+)[ \t]*\(", re.MULTILINE)


class ThirdParty(NamedTuple):
    """A C file, and the sorted names of the parameters that policies give it."""

    name: str
    source: str
    parameters: tuple[str, ...]


def gather(kind: str, named: Iterable[tuple[str, str, Mapping[str, int]]]) -> list[ThirdParty]:
    """The third parties of all policies' (name, source, parameters), each once, sorted by name.

    ``kind`` is what their files are, in words. Raises PmError where one name stands for two files.
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
    kind: str,
    each_macro: str,
    calls: Sequence[str],
    third_parties: Sequence[ThirdParty],
    *,
    built_in: Path,
    functions: Sequence[str],
    zero_place: int,
) -> list[str]:
    """Compiler flags that add third parties' files to a program; none where there are none.

    ``each_macro`` is the macro, with its parameters, that is to expand to ``calls``. ``built_in`` is the
    header that includes the files of this package; it comes first, so that no macro of a third party
    can change them. Each file must have NAME_function for each of ``functions``. ``zero_place`` is the
    index of a parameter that is always 0.

    Raises PmError for a file that cannot be read, lacks a function, has maps or does not know a parameter.
    """
    if not third_parties:
        return []
    return [
        f"-D{each_macro}={' '.join(calls)}",
        *(
            f"-DPARAMETER_{third_party.name}_{parameter}={place}"
            for third_party in third_parties
            for parameter, place in _places(kind, third_party, functions, zero_place).items()
        ),
        *("-include", str(built_in)),
        *(flag for third_party in third_parties for flag in ("-include", third_party.source)),
    ]


def digest(flags: Sequence[str], third_parties: Sequence[ThirdParty]) -> str:
    """Digest of all compiler inputs that a reload may change: ``flags``, and the third parties' files."""
    inputs = hashlib.sha256(repr(flags).encode())
    for third_party in third_parties:
        inputs.update(Path(third_party.source).read_bytes())
    return inputs.hexdigest()


def file_digests(third_parties: Sequence[ThirdParty]) -> dict[str, str]:
    """Path -> SHA-256 of the content, hex."""
    return {t.source: hashlib.sha256(Path(t.source).read_bytes()).hexdigest() for t in third_parties}


def blamed(error: PmError, third_parties: Sequence[ThirdParty]) -> PmError:
    """The error of a compilation or of the verifier, where third parties' files are a part of it.

    It is theirs: the files of this package alone do compile, and are accepted.
    """
    if not third_parties or not isinstance(error, DoesNotCompile | VerifierRefused):
        return error
    files = ", ".join(other.source for other in third_parties if other.source not in error.message)
    return PmError(f"{files}: {error.message}" if files else error.message, error.remedy)


def _places(kind: str, third_party: ThirdParty, functions: Sequence[str], zero_place: int) -> dict[str, int]:
    """Index of each parameter that the file reads; ``zero_place`` for one that no policy gives."""
    name, source, parameters = third_party
    try:
        text = Path(source).read_text(errors="replace")
    except OSError as e:
        raise PmError(f"{kind} {name}: {source}: {e.strerror}", "correct `source`") from e
    for function in functions:
        if not re.search(rf"\b{name}_{function}\s*\(", text):
            raise PmError(f"{kind} {name}: {source} has no function `{name}_{function}`", "define it")
    if found := _MAP.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise PmError(
            f"{kind} {name}: {source}:{line}: `{found[1]}` defines a map, which such a file cannot have",
            "keep state in the private words that it is given",
        )
    blank = r"[\s\\]*"  # a macro's definition has line breaks after backslashes
    uses = rf"\bPARAMETER{blank}\([^,;]{{1,200}},{blank}{name}_(\w+){blank}\)"
    known = sorted(set(re.findall(uses, text)))
    for parameter in parameters:
        if parameter not in known:
            raise PmError(
                f"{kind} {name}: {source} has no parameter `{parameter}`",
                f"it has {', '.join(known) or 'none'}",
            )
    return {p: parameters.index(p) if p in parameters else zero_place for p in known}
