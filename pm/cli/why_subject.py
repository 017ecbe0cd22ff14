# SPDX-License-Identifier: Apache-2.0
"""What ``why SUBJECT`` is about: a session, a process, a cgroup or an address."""

from __future__ import annotations

from enum import StrEnum
from os.path import lexists
from shlex import quote
from typing import NamedTuple

from pm.errors import PmError
from pm.linux.host.cgroups import directory_of, find_cgroup_root
from pm.names import printable, valid_text
from pm.notation import parse_end
from pm.policies.globs import MOUNT

WHAT_IT_IS = "write a token 0x8b3e25f1, a PID 1234, a cgroup /system.slice/a.service, or 192.0.2.1:443"
LONGEST = 300
PID_MAX = 1 << 22  # the kernel has no larger ones (PID_MAX_LIMIT)
UNITS = (".service", ".scope", ".slice")


class Kind(StrEnum):
    TOKEN = "token"
    PID = "pid"
    CGROUP = "cgroup"
    ADDRESS = "address"


class Subject(NamedTuple):
    kind: Kind
    text: str


def parse_cgroup(text: str) -> str:
    """Text as systemctl, /proc or the file system has it; unchanged if it is no path. PmError for a unit."""
    path = text.removeprefix("ControlGroup=").removeprefix("0::")
    if path.startswith("/"):
        mount = MOUNT.match(path)
        return valid_text(path[mount.end() if mount else 0 :].rstrip("/") or "/")
    if text.endswith(UNITS):
        remedy = f"give its cgroup, `systemctl show -p ControlGroup {quote(text)}`"
        raise PmError(f"{text!r} is the name of a unit", remedy)
    return text


def require_cgroup(path: str) -> None:
    """Raises PmError where this machine has no such cgroup: that nothing is in it would be no answer."""
    try:
        root = find_cgroup_root()
    except PmError:
        return  # nobody can tell
    if not (path.startswith("/") and lexists(directory_of(root, path))):
        raise PmError(f"no cgroup {path!r}", "`systemd-cgls` shows those there are")


def parse_subject(text: str) -> Subject:
    """A number that can be a PID is one: tokens have ``0x`` or eight digits. Raises PmError."""
    if (path := parse_cgroup(text)).startswith("/"):
        return Subject(Kind.CGROUP, path)
    if text.isascii() and text.isdecimal() and len(text) < 8 and int(text) <= PID_MAX:
        return Subject(Kind.PID, text)
    if len(text) > LONGEST:
        raise PmError(f"`{printable(text[:20])}…` is longer than any address or token", WHAT_IT_IS)
    if (text.isascii() and text.isalnum() and text[0].isdecimal()) or _is_hexadecimal(text):
        return Subject(Kind.TOKEN, text)
    try:
        parse_end(text)
    except ValueError:
        raise PmError(
            f"{text!r} is no session, process, cgroup or address",
            WHAT_IT_IS,
        ) from None
    return Subject(Kind.ADDRESS, text)


def _is_hexadecimal(text: str) -> bool:
    """As ``ss`` prints tokens."""
    return len(text) == 8 and all(digit in "0123456789abcdefABCDEF" for digit in text)
