# SPDX-License-Identifier: Apache-2.0
"""What is valid and most likely a mistake: warnings about a configuration. Pure.

Each is found without looking at this machine; ``mptcp-pm check --here`` does that (``pm.cli.here``).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from shlex import quote

from pm.config.document import Document, Loc, one_line, path_of
from pm.config.model import Config
from pm.errors import Problem
from pm.policies.globs import AUTO, MOUNT, level_tokens, split_glob
from pm.policies.model import Addresses, Policy, Start
from pm.policies.policy_table import PolicyTable

Finding = tuple[Loc, str]

_REGEX = re.compile(r"\.\*|\.\+|\\[dws]|\(.*\)|\||^/?\^|\$$|[\])]\+")
_BRACES = re.compile(r"\{[^}]*,[^}]*\}")
_SPECIFIER = re.compile(r"%[a-zA-Z]")  # systemd.unit(5)
_LABEL = re.compile(r"[^:]+:\d+")
_UNIT = re.compile(r"/[^/]+\.(?:service|scope|socket)")
# Text that stands for whatever a wildcard matches, and that nobody writes into a glob.
_ANY = "q0q"


def suspicions(document: Document, config: Config) -> tuple[Problem, ...]:
    """Every warning, by line."""
    found = [*_cgroups(config.policies), *_interfaces(config.addresses), *_no_effect(config.policies)]
    found += _shadowed(config.policies)
    warnings = [Problem(document.file, document.line_of(loc), path_of(loc), one_line(t)) for loc, t in found]
    return tuple(sorted(warnings, key=lambda warning: warning.line))


def _cgroups(policies: Sequence[Policy]) -> Iterator[Finding]:
    for i, policy in enumerate(policies):
        glob, loc = policy.cgroup, ("policies", i, "cgroup")
        if mount := MOUNT.match(glob):
            rest = glob[mount.end() :] or "/"
            yield loc, f"paths are relative to the cgroup2 root: write `{rest}` without `{mount[0]}`"
        elif glob != glob.rstrip() or re.search(r"\s/|/\s", glob):
            yield loc, f"{glob!r} has a blank at the start or end of a name: no cgroup has one, remove it"
        elif _BRACES.search(glob):
            yield loc, f"`{glob}`: braces are no wildcards here: write one policy for each"
        elif specifier := _SPECIFIER.search(glob):
            yield loc, f"`{specifier[0]}` is systemd's and is not replaced here: write `*`"
        elif _REGEX.search(glob):
            yield loc, f"`{glob}` looks like a regular expression: this is a glob, in which `*` is any text"
        elif _UNIT.fullmatch(glob):
            yield loc, f"units are below a slice: see `systemctl show -p ControlGroup {quote(glob[1:])}`"


def _interfaces(rules: Addresses) -> Iterator[Finding]:
    for key in ("include", "exclude", "backup", "order"):
        for j, name in enumerate(getattr(rules, key)):
            if text := _no_interface(name):
                yield ("addresses", key, j), text
    usable = [name for name in rules.include if not any(_covers(glob, name) for glob in rules.exclude)]
    if not usable:
        loc = ("addresses", "exclude" if rules.include else "include")
        yield loc, "no interface is left: no address will be used, and no subflow opened"
        return
    for key in ("backup", "order"):
        for j, name in enumerate(getattr(rules, key)):
            if not any(_overlap(name, glob) for glob in rules.include):
                yield ("addresses", key, j), f"`{name}` is not in `include`: add it there, or remove it here"
            elif any(_covers(glob, name) for glob in rules.exclude):
                yield ("addresses", key, j), f"`{name}` is in `exclude`: it is never used"


def _no_interface(name: str) -> str:
    try:
        ipaddress.ip_interface(name)
    except ValueError:
        pass
    else:
        return f"`{name}` is an address: write the name of its interface (`ip address` shows it)"
    if "@" in name:
        return f"`{name}`: what `ip` shows after `@` is no part of the name: write `{name.partition('@')[0]}`"
    if _LABEL.fullmatch(name):
        return f"`{name}` is the label of an address: write the interface, `{name.partition(':')[0]}`"
    if _BRACES.search(name):
        return f"`{name}`: braces are no wildcards here: write one entry for each"
    if _REGEX.search(name):
        return f"`{name}` looks like a regular expression: this is a glob, in which `*` is any text"
    return ""


def _no_effect(policies: Sequence[Policy]) -> Iterator[Finding]:
    for i, policy in enumerate(policies):
        loc, chosen = ("policies", i), policy.path_manager
        if chosen.name == "none" and policy.start != Start():
            yield (*loc, "start"), "has no effect: the path manager `none` opens no subflows"
        for key in ("max_subflows", "subflows"):
            if getattr(chosen.parameters, key, None) == 1:
                where = (*loc, "path_manager", chosen.name, key)
                yield where, "1 counts the initial subflow: no other is opened, as with `none`"
        if policy.accept.from_ == ():
            yield (*loc, "accept", "from"), "is empty: every join of a peer is refused"
        if policy.accept.max_subflows == 1 and policy.announce:
            yield (*loc, "accept", "max_subflows"), "1 refuses every join, and `announce` asks peers for them"


def _shadowed(policies: Sequence[Policy]) -> Iterator[Finding]:
    """Policies that another one keeps from what they seem to be for, as far as their globs tell."""
    table = PolicyTable(policies)
    for i, policy in enumerate(policies):
        if policy.cgroup == AUTO:
            continue  # has what no glob matches
        loc, sample = ("policies", i, "cgroup"), _sample(policy.cgroup)
        owner = table.direct(sample)
        if owner and owner is not policy:
            yield loc, f"never applies: `{owner.cgroup}` of policy `{owner.name}` is more specific"
            continue
        below = sample.rstrip("/")
        closer = table.direct(f"{below}/{_ANY}")
        if closer and closer is not policy and closer is table.direct(f"{below}/{_ANY}/{_ANY}"):
            yield (
                loc,
                f"cgroups below it belong to policy `{closer.name}`, since `{closer.cgroup}` matches closer "
                f"to them: only sockets of `{policy.cgroup}` itself are its own",
            )


def _sample(glob: str) -> str:
    """A cgroup that the glob matches, and as few other globs as possible."""
    levels = []
    for level in split_glob(glob):
        tokens = [_ANY] if level == "**" else level_tokens(level)
        levels.append("".join(_any(token) for token in tokens))
    return "/" + "/".join(levels)


def _any(token: str) -> str:
    if token == "*":
        return _ANY
    if token == "?":
        return "q"
    if len(token) > 1 and token.startswith("["):
        return "q" if token[1] == "!" else token[1]
    return token


def _covers(glob: str, other: str) -> bool:
    """Whether a glob matches all that another does, as far as one example tells."""
    return fnmatchcase(_example(other), glob)


def _overlap(one: str, other: str) -> bool:
    return fnmatchcase(_example(one), other) or fnmatchcase(_example(other), one)


def _example(glob: str) -> str:
    text = re.sub(r"\[(!?)(.)[^\]]*\]", lambda m: "q" if m[1] else m[2], glob)
    return text.replace("*", _ANY).replace("?", "q")
