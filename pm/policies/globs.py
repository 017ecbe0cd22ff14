# SPDX-License-Identifier: Apache-2.0
"""Globs over cgroup paths: their syntax, and regular expressions for them.

Paths are text relative to the cgroup2 root: ``/`` for the root itself and ``/a/b`` below it.
"""

from __future__ import annotations

import re
from shlex import quote

# Every level ends at a slash or at the end of the path.
_LEVEL_END = r"(?![^/])"
NEVER = r"(?!)"
AUTO = "auto"
"""Instead of a glob: every cgroup that has a socket in the network namespace."""
MOUNT = re.compile(r"/sys/fs/cgroup(?:/unified)?(?=/|$)")
"""In front of a path that was completed by the shell, and by mistake in a glob."""


def check_cgroup(text: str) -> None:
    """Raises ValueError for what is neither ``auto`` nor a glob."""
    if text != AUTO:
        split_glob(text)


def split_glob(glob: str) -> tuple[str, ...]:
    """The levels of a cgroup glob, () for the root. Raises ValueError with a message on how to fix it.

    ``*`` and ``?`` stay within a level; ``[abc]``, ``[a-z]`` and ``[!abc]`` stand for one character
    and quote special ones (``[*]``); a level ``**`` is any number of levels, including none. A
    backslash is an ordinary character: systemd uses it in the names of cgroups.
    """
    if not glob.startswith("/"):
        raise ValueError(f"must start with `/`, the cgroup2 root: {_remedy(glob)}")
    if glob == "/":
        return ()
    if re.search(r"[\x00-\x1f\x7f]", glob):
        raise ValueError("contains a control character: remove it")
    levels = glob[1:].split("/")
    if ".." in levels:
        raise ValueError("leads outside the cgroup2 root: write the path without `..`")
    if "." in levels:
        raise ValueError("has a level `.`: leave it out")
    if not all(levels):
        tidy = re.sub("/+", "/", glob).rstrip("/") or "/"
        raise ValueError(f"has an empty level: write `{tidy}`")
    for level in levels:
        if "**" in level and level != "**":
            raise ValueError(f"bad glob: `**` must be a whole level, not part of `{level}`: write `*`")
        level_tokens(level)
    return tuple(levels)


def _remedy(glob: str) -> str:
    """What was meant by text that does not start with a slash."""
    # As `systemctl show -p ControlGroup` and /proc/PID/cgroup print it.
    if pasted := re.fullmatch(r"(?:ControlGroup=|\d+:[^:]*:)(/.*)", glob):
        return f"write `{pasted[1]}`"
    if re.fullmatch(r"[^/]+\.(?:service|scope|socket)", glob):
        return f"see `systemctl show -p ControlGroup {quote(glob)}`"
    return f"write `/{glob}`"


def level_tokens(level: str) -> list[str]:
    """Split a level into single characters and whole sets. Raises ValueError for a bad set."""
    tokens = []
    i = 0
    while i < len(level):
        end = i + 1
        if level[i] == "[":
            body = i + 2 if level[i + 1 : i + 2] == "!" else i + 1
            close = level.find("]", body + 1)  # a `]` right after the start is a member of the set
            if close < 0:
                raise ValueError(f"bad glob: `[` is not closed in `{level}`: add `]`, or write `[[]`")
            for low, high in _members(level[i : close + 1]):
                if high and low > high:
                    raise ValueError(f"bad glob: the range `{low}-{high}` is backwards: write `{high}-{low}`")
            end = close + 1
        tokens.append(level[i:end])
        i = end
    return tokens


def glob_regex(levels: tuple[str, ...]) -> str:
    """A regular expression for the whole path that a glob matches; the root is the empty text.

    The text between two wildcards has a fixed length, and thus its leftmost match is as good as any
    other: atomic groups keep a hostile cgroup name from making the search exponential.
    """
    runs: list[list[str]] = [[]]
    for level in levels:
        if level == "**":
            runs.append([])
        else:
            runs[-1].append(_level_regex(level))
    first, *rest = ["".join(run) for run in runs]
    if not rest:
        return first
    middle = "".join(rf"(?>(?:/[^/]+)*?{run})" for run in rest[:-1] if run)
    return rf"{first}{middle}(?:/[^/]+)*{rest[-1]}"


def _level_regex(level: str) -> str:
    parts: list[str] = [""]
    for token in level_tokens(level):
        if token == "*":
            parts.append("")
        elif token == "?":
            parts[-1] += "[^/]"
        elif len(token) > 1:
            parts[-1] += _set_regex(token)
        else:
            parts[-1] += re.escape(token)
    first, *rest = parts
    if not rest:
        return f"/{first}{_LEVEL_END}"
    middle = "".join(f"(?>[^/]*?{part})" for part in rest[:-1] if part)
    return f"(?>/(?=[^/]){first}{middle}[^/]*{rest[-1]}{_LEVEL_END})"


def _set_regex(token: str) -> str:
    inverted = token[1] == "!"
    members = [
        f"{re.escape(low)}-{re.escape(high)}" if high else re.escape(low) for low, high in _members(token)
    ]
    return f"[{'^/' * inverted}{''.join(members)}]"


def _members(token: str) -> list[tuple[str, str]]:
    """The characters (c, "") and ranges (low, high) of a set."""
    return re.findall(r"(.)(?:-(.))?", token[2:-1] if token[1] == "!" else token[1:-1])


def above_regexes(levels: tuple[str, ...]) -> list[str]:
    """Regular expressions for every path strictly below which the glob could match something."""
    branches = []
    prefix = ""
    for level in levels:
        if level == "**":
            branches.append(rf"{prefix}(?:/[^/]+)*")
            break
        branches.append(prefix)
        prefix += _level_regex(level)
    return branches
