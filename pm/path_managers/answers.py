# SPDX-License-Identifier: Apache-2.0
"""Checks what a path manager answers, before anything is done with it: it may be a third party's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address

from pm.model import LocalAddress, Origin, Pair, Want, Wanted, family_of
from pm.path_managers.base import SessionView

PAIRS_MAX = 256  # far more than a session can have subflows


def problem_of(answer: object, session: SessionView, addresses: Sequence[LocalAddress]) -> str:
    """What is wrong with an answer of ``wanted``, in words, or "".

    A pair to which the peer cannot be reached is not wrong: it may exist, and is not opened.
    """
    if type(answer) is not dict:
        return f"the answer is {_shown(answer)}, not a dict of Pair to Want"
    if len(answer) > PAIRS_MAX:
        return f"the answer has {len(answer)} pairs, more than {PAIRS_MAX}"
    known = {a.ip for a in addresses}
    for pair, want in answer.items():
        if problem := _problem_of_pair(pair, session) or _problem_of_want(want):
            return f"{_shown(pair)}: {problem}"
        # The address of a subflow that exists may be gone, or excluded by the rules.
        known_here = pair.local in known or pair.local == session.local
        if not known_here and all(pair.local != s.local for s in session.subflows):
            return f"{_shown(pair)}: {pair.local} is none of the usable local addresses"
    return ""


def as_it_is(session: SessionView) -> Wanted:
    """The subflows that a session has, except those that the peer opened."""
    wanted: Wanted = {}
    for subflow in session.subflows:
        if subflow.origin is not Origin.PEER:
            count = wanted[subflow.pair].subflows if subflow.pair in wanted else 0
            wanted[subflow.pair] = Want(count + 1, subflow.backup)
    return wanted


def subflows_in(answer: Wanted) -> int:
    """How many subflows an answer asks for."""
    return sum(want.subflows for want in answer.values())


def in_words(error: BaseException) -> str:
    """What a third party's code raised, in one line of bounded length."""
    try:
        text = " ".join(str(error).split())[:200]
    except Exception:  # its own __str__ raises
        text = ""
    name = type(error).__name__
    return f"raised {name}: {text}" if text.isprintable() and text else f"raised {name}"


def _problem_of_pair(pair: object, session: SessionView) -> str:
    if type(pair) is not Pair:
        return "is not a Pair"
    for ip in (pair.local, pair.remote):
        if type(ip) is not str or not _is_ip(ip):
            return f"{_shown(ip)} is not an IP address"
    if family_of(pair.local) != family_of(pair.remote):
        return "its addresses are of different families"
    if session.socket_family == 4 and family_of(pair.local) == 6:
        return "the session's socket is IPv4 and can have no IPv6 subflow"
    if type(pair.remote_port) is not int or not 1 <= pair.remote_port <= 65535:
        return f"{_shown(pair.remote_port)} is not a port, an int from 1 to 65535"
    return ""


def _problem_of_want(want: object) -> str:
    if type(want) is not Want:
        return f"{_shown(want)} is not a Want"
    if type(want.subflows) is not int or want.subflows < 1:
        return f"{_shown(want.subflows)} subflows: at least 1, or leave the pair out"
    if type(want.backup) is not bool:
        return f"backup is {_shown(want.backup)}, not a bool"
    return ""


@lru_cache(maxsize=4096)
def _is_ip(text: str) -> bool:
    """Whether it is an address in canonical text, as those that the kernel reports are."""
    try:
        return "%" not in text and str(ip_address(text)) == text
    except ValueError:
        return False


def _shown(value: object) -> str:
    """A stranger's value in a line: bounded, and without running the stranger's code."""
    if type(value) is Pair and all(type(part) in (str, int) for part in value):
        return f"{value.local} × {value.remote}"[:100]
    if type(value) in (str, int, float, bool, type(None)):
        text = repr(value)[:60]
        return text if text.isprintable() else ascii(text)
    return f"a value of type {type(value).__name__}"
