# SPDX-License-Identifier: Apache-2.0
"""Screens of ``top`` at every size: what is on them, and that nothing is wider than the screen."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from pm.cli.tables import duration_text
from pm.cli.top.collector import SessionRow, Snapshot
from pm.cli.top.frame import Shown, frame, plain_lines
from pm.cli.top.glyphs import ASCII, BLOCKS, Glyphs
from pm.cli.top.live_tables import rate_text
from pm.cli.top.state import Chosen, Screenful, State
from pm.cli.top.typed_keys import Key
from pm.cli.top.views_of_top import View
from tests.unit.cli.top.documents import detail, interface, policy, session, snapshot, status, subflow

HOSTILE = "\x1b]0;owned\x07\u202e[red]日本語\n\x9b2J"
SIZES = [(40, 12), (80, 24), (100, 30), (200, 50)]


def screen(
    shown: Snapshot | Shown, state: State, columns: int = 80, lines: int = 24, glyphs: Glyphs = BLOCKS
) -> list[str]:
    shown = Shown(shown) if isinstance(shown, Snapshot) else shown
    drawn = frame(shown, state, os.terminal_size((columns, lines)), glyphs)[0]
    assert len(drawn) <= lines
    assert [line for line in drawn if line.cell_len > columns] == []
    return [line.plain.rstrip() for line in drawn]


def of(view: View, **changes: Any) -> State:
    return replace(State(view=view), **changes)


def test_interfaces_at_80_columns() -> None:
    """Rates, share with a bar, RTT and history; why an interface is not used."""
    lines = screen(snapshot(), State())
    assert lines[0] == "mptcp-pm  3 sessions  sent 12.3 MiB/s  received 512 KiB/s  22:13:20  ready"
    assert lines[1] == "1>interfaces  2 policies  3 sessions  by rate"
    assert lines[3:7] == [
        "INTERFACE  STATE             SENT    RECEIVED  SHARE               RTT  HISTORY",
        "eth0       up          12.3 MiB/s   512 KiB/s   75% ██████     12.3 ms     ▁▂▃▅█",
        "eth1       up               0 B/s       0 B/s   25% ██               –     ▁▂▃▅█",
        "eth2       no carrier  no default route",
    ]
    assert lines[-1].startswith("q quit  h help  Tab view")
    assert len(lines) == 24


def test_interfaces_at_40_columns() -> None:
    """What matters most is left."""
    lines = screen(snapshot(), State(), 40, 12)
    assert lines[3:5] == [
        "INTERFACE        SENT    RECEIVED  SHARE",
        "eth0       12.3 MiB/s   512 KiB/s   75%",
    ]
    assert lines[6] == "eth2       no default route"


def test_interfaces_at_200_columns() -> None:
    lines = screen(snapshot(), State(), 200, 50)
    assert all(word in lines[3] for word in ("RETRANS", "SESSIONS", "ALL RECEIVED", "ADDRESSES"))
    assert lines[4].endswith("10.0.1.1/24")


def test_policies() -> None:
    """Which interface carries what of each."""
    lines = screen(snapshot(View.POLICIES), of(View.POLICIES))
    assert lines[3:6] == [
        "POLICY    SESSIONS        SENT    RECEIVED  BY INTERFACE                HISTORY",
        "sync             3  3.00 MiB/s  1.00 MiB/s  eth0 75%, eth1 25%             ▁▂▃▅█",
        "rest             9           –           –  –",
    ]


def test_sessions() -> None:
    lines = screen(snapshot(View.SESSIONS), of(View.SESSIONS))
    assert lines[3:6] == [
        "SESSION     POLICY    PATHS        SENT    RECEIVED  REMOTE",
        "0xa0000001  sync          2  2.00 KiB/s       0 B/s  10.0.1.2:443",
        "0xa0000002  –             2           –           –  10.0.1.2:443",
    ]
    wide = screen(snapshot(View.SESSIONS), of(View.SESSIONS), 200)
    assert all(
        word in wide[4] for word in ("1 min 15 s", "5.9 KiB", "established", "/system.slice/rsync1.service")
    )


def test_one_session() -> None:
    """Two lines per subflow with its rates and history, then what it has not, then what happened."""
    values = [
        ("sent_per_second", [0.0, 1024.0]),
        ("received_per_second", [0.0, 0.0]),
        ("rtt", [0.001, 0.002]),
    ]
    labels = {"subflow": "10.0.1.1:40001-10.0.1.2:443", "interface": "eth0"}
    series = {"series": [{"name": name, "labels": labels, "values": v} for name, v in values]}
    missing = {"local": "10.0.3.1", "remote": "10.0.1.2", "state": "backing_off", "reason": "ENETUNREACH",
               "age_s": None, "retransmits": 0, "failures": 2, "retry_in_s": 5.0}  # fmt: skip
    shown = snapshot(View.SESSIONS, opened="0xa0000001", session=detail(missing=[missing]), series=series)
    lines = screen(shown, of(View.SESSIONS, opened="0xa0000001"))
    text = "\n".join(lines)
    assert "10.0.1.1:40001-10.0.1.2:443  established, initial subflow (application)" in text
    assert "  eth0       1.00 KiB/s       0 B/s  100% █████        ▁█    1.5 ms           ▅█" in text
    assert "established, backup, initial" in text
    assert "10.0.3.1 × 10.0.1.2: backing off, failures: 2, next try in 5 s, ENETUNREACH" in text
    assert text.index("11:59:01  established") < text.index("11:59:00  created")
    assert lines[1] == "1 interfaces  2 policies  3>sessions  session 0xa0000001"
    narrow = "\n".join(screen(shown, of(View.SESSIONS, opened="0xa0000001"), 40, 24))
    assert "10.0.2.1:50000-10.0.2.2:443\n  established, backup, initial subflow (" in narrow


def test_a_session_that_has_ended_is_said() -> None:
    shown = snapshot(View.SESSIONS, opened="0x1", message="0x1: no such session")
    assert screen(shown, of(View.SESSIONS, opened="0x1"))[3] == "0x1: no such session"


def test_a_long_history_scrolls() -> None:
    events = [{"time": f"2026-11-26T11:59:{n:02}.0Z", "event": f"e{n}", "detail": ""} for n in range(60)]
    shown = snapshot(View.SESSIONS, opened="0xa0000001", session=detail(events=events))
    state = of(View.SESSIONS, opened="0xa0000001")
    size = os.terminal_size((80, 24))
    seen = frame(Shown(shown), state, size, BLOCKS)[1]
    lines = screen(shown, state.press(Key.END, seen))
    assert lines[-2] == "11:59:00  e0"
    assert lines[-1].endswith(f"of {len(seen.keys)}")


def test_pages_of_many_sessions() -> None:
    """The page with the selected row is shown; how many there are is said."""
    rows = [SessionRow(session(f"0x{number:08x}"), None, []) for number in range(100)]
    shown = snapshot(View.SESSIONS, status=status(sessions=10_000))._replace(sessions=rows)
    state = of(View.SESSIONS, of_view={View.SESSIONS: Chosen("rate", selected=20)})
    drawn, seen = frame(Shown(shown), state, os.terminal_size((80, 24)), BLOCKS)
    lines = [line.plain for line in drawn]
    assert [lines[4][:10], lines[5][:10]] == ["0x00000013", "0x00000014"]
    assert lines[-1].endswith("20-38 of 10000")
    assert seen.height == 19
    assert [str(span.style) for span in drawn[5].spans if span.style == "reverse"] == ["reverse"]
    assert lines[0].startswith("mptcp-pm  10000 sessions (3 sampled)")


@pytest.mark.parametrize(
    ("chosen", "policy", "limit", "position"),
    [
        (Chosen("rate", text="10.0"), None, 38, "1-19 of 38 or more"),
        (Chosen("rate"), "sync", 38, "1-19 of 38 or more"),
        (Chosen("rate", text="10.0"), None, 57, "1-19 of 38"),
        (Chosen("rate"), None, 38, "1-19 of 10000"),
    ],
)
def test_how_many_sessions_match_is_said_where_it_is_known(
    chosen: Chosen, policy: str | None, limit: int, position: str
) -> None:
    """The service was asked for two pages: if it gave as many, there may be others."""
    rows = [SessionRow(session(f"0x{number:08x}"), None, []) for number in range(38)]
    shown = snapshot(View.SESSIONS, status=status(sessions=10_000))._replace(sessions=rows)
    shown = shown._replace(request=shown.request._replace(policy=policy, limit=limit))
    lines = screen(shown, of(View.SESSIONS, policy=policy, of_view={View.SESSIONS: chosen}), 80)
    assert lines[-1].endswith(f" {position}")


def test_interfaces_that_the_service_left_out_are_counted() -> None:
    """It lists so many, those that carried the most; a filter looks at these."""
    rows = [interface(f"eth{number}") for number in range(256)]
    shown = snapshot(interfaces=rows)._replace(left_out=44)
    assert screen(shown, State())[-1].endswith(" 1-19 of 300")
    state = State(of_view={View.INTERFACES: Chosen("rate", text="eth1")})
    assert screen(shown, state)[-1].endswith(" 1-19 of 111")


def test_orders() -> None:
    """Greatest first, names from a to z; reversed the other way."""

    def names(**chosen: Any) -> list[str]:
        state = State(of_view={View.INTERFACES: Chosen(**chosen)})
        rows = [interface("b", rtt=0.1), interface("a", rtt=0.2), interface("c", rtt=None)]
        return [line.split()[0] for line in screen(snapshot(interfaces=rows), state)[4:7]]

    assert names(sort="rtt") == ["a", "b", "c"]
    assert names(sort="rtt", reverse=True) == ["c", "b", "a"]
    assert names(sort="name") == ["a", "b", "c"]


def test_a_filter() -> None:
    """In names and addresses, in any case; that nothing has it is said."""
    state = State(of_view={View.INTERFACES: Chosen("rate", text="ETH2")})
    lines = screen(snapshot(), state)
    assert lines[1].endswith("filter 'ETH2'  by rate")
    assert [line.split()[0] for line in lines[4:] if line][:2] == ["eth2", "q"]
    state = State(of_view={View.INTERFACES: Chosen("rate", text="nosuch")})
    assert screen(snapshot(), state)[3] == "no interfaces with 'nosuch'"
    assert screen(snapshot(), replace(State(), typed="wl"))[-1] == "filter: wl_"


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (Shown(snapshot(), "the service is not running"), "trying again: the service is not running"),
        (Shown(snapshot(), silent_s=7.2), "the service has not answered for 7 s"),
        (Shown(snapshot(status=status(reasons=["sysctl was changed"]))), "sysctl was changed"),
        (
            Shown(snapshot(status=status(config={"last_reload": {"ok": False}}))),
            "the configuration file is bad",
        ),
        (Shown(snapshot()), ""),
    ],
)
def test_what_is_wrong_is_said(shown: Shown, message: str) -> None:
    line = screen(shown, State())[2]
    assert line.startswith(message)
    assert bool(line) == bool(message)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("glyphs", [BLOCKS, ASCII])
def test_no_name_commands_the_terminal_or_moves_columns(size: tuple[int, int], glyphs: Glyphs) -> None:
    """Of cgroups, interfaces, policies, or in what a peer causes."""
    hostile = session(cgroup=HOSTILE, policy=HOSTILE, subflows=[subflow(reason=HOSTILE)])
    events = [{"time": HOSTILE, "event": HOSTILE, "detail": HOSTILE}]
    bad = snapshot(
        interfaces=[interface(HOSTILE, reason=HOSTILE, used=False, state=HOSTILE, addresses=[HOSTILE])],
        status=status(reasons=[HOSTILE], version=HOSTILE),
    )
    policies = [row._replace(policy=policy(HOSTILE, cgroup=HOSTILE)) for row in bad.policies]
    bad = bad._replace(policies=policies, sessions=[SessionRow(hostile, None, [])])
    states = [of(view, typed=HOSTILE if view is View.POLICIES else None) for view in View]
    states.append(of(View.SESSIONS, opened="x"))
    states.append(of(View.SESSIONS, policy=HOSTILE))
    for state in states:
        request = bad.request._replace(view=state.view, opened=state.opened, policy=state.policy)
        shown = bad._replace(
            request=request, session=detail(**hostile, events=events) if state.opened else None
        )
        for line in screen(Shown(shown, HOSTILE), state, *size, glyphs=glyphs):
            assert line.isprintable()
            assert glyphs is BLOCKS or line.isascii()
        assert all(line.plain.isprintable() for line in plain_lines([shown], None, glyphs))


@pytest.mark.parametrize("columns", [1, 2, 7, 20, 39])
@pytest.mark.parametrize("lines", [1, 2, 5, 7])
def test_tiny_screens(columns: int, lines: int) -> None:
    """Something fits on each."""
    for view in View:
        for helping in (False, True):
            screen(snapshot(view), of(view, helping=helping), columns, lines)


def test_help_names_every_key() -> None:
    text = "\n".join(screen(snapshot(), replace(State(), helping=True)))
    for word in ("Tab", "Enter", "Esc", "s  ", "r  ", "/  ", "p  ", "q  "):
        assert word in text


def test_rows_of_another_view_are_not_shown() -> None:
    """Nor can a key open one of them."""
    drawn, seen = frame(Shown(snapshot()), of(View.SESSIONS), os.terminal_size((80, 24)), BLOCKS)
    assert "eth0" not in "".join(line.plain for line in drawn)
    assert seen == Screenful((), 19)


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, "–"), (0, "0 B/s"), (999, "999 B/s"), (1000, "0.98 KiB/s"), (12345, "12.1 KiB/s"),
        (999.6 * 1024, "0.98 MiB/s"), (10.0 * 2**20, "10.0 MiB/s"), (123.4 * 2**30, "123 GiB/s"),
        (5e18, "4547474 TiB/s"),
    ],
)  # fmt: skip
def test_rates_have_three_digits(rate: float | None, text: str) -> None:
    assert rate_text(rate) == text


def test_columns_keep_their_places_and_bars_their_scale() -> None:
    """While figures change: half of the bytes is always half of the same bar."""

    def lines(*shares: float) -> list[str]:
        rows = [interface(f"eth{n}", share=share) for n, share in enumerate(shares)]
        return screen(snapshot(interfaces=rows), State(), 200)[3:5]

    titles, even = lines(0.5, 0.5)
    assert "  50% █████ " in even
    for shares in ((1.0, 0.0), (0.34, 0.33), (0.0, 0.0)):
        assert lines(*shares)[0] == titles


@pytest.mark.parametrize(
    ("rate", "text"),
    [(None, "–"), (0, "0/s"), (0.1234, "0.123/s"), (999.6, "1000/s"), (1234.5, "1234/s")],
)
def test_retransmits_are_no_powers_of_ten(rate: float | None, text: str) -> None:
    rows = [interface(retransmits_per_second=rate)]
    assert re.split(" {2,}", screen(snapshot(interfaces=rows), State(), 120)[4])[8] == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00123, "1.23 ms"), (0.9994, "999 ms"), (0.9996, "1 s"), (59.99, "60 s")]
)
def test_durations_are_no_powers_of_ten(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_pipe_gets_everything_and_no_padding() -> None:
    """No bars, nothing cut, no blank at the end of a line."""
    lines = [line.plain for line in plain_lines([snapshot(view) for view in View], None, BLOCKS)]
    assert [line for line in lines if line != line.rstrip()] == []
    text = "\n".join(lines)
    assert "▁" not in text
    assert "█" not in text
    for word in (
        "INTERFACES\n",
        "POLICIES\n",
        "SESSIONS\n",
        "no default route",
        "/system.slice/rsync1.service",
    ):
        assert word in text
    assert max(map(cell_len, lines)) < 200
