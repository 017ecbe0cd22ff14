# SPDX-License-Identifier: Apache-2.0
"""Options that a peer should not send: a living connection gets them, and says what it made of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pm.programs.tcp_option_programs import PluginReport
from tests.lab.forge import inject, observe
from tests.lab.lab import Lab
from tests.lab.tcp_options import ACCEPT, ALGORITHMS, USUAL, Connection, with_options
from tests.lab.waiting import wait_for

NOT_ACCEPTED = bytes((next(i for name, i in ALGORITHMS.items() if name not in ("reno", "cubic")),))
UTO, IW, CC, ACK = "user_timeout", "initial_window", "congestion_control", "delayed_ack"

# Options in hex -> plugin, applied value, reason of refusal.
CASES = {
    "1c04 001e": (UTO, 30_000, None),
    "1c04 8002": (UTO, 120_000, None),  # minutes
    "1c04 ffff": (UTO, 600_000, None),  # U_LIMIT
    "1c04 0001": (UTO, 5_000, None),  # L_LIMIT
    "1c04 001e 1c04 0028": (UTO, 30_000, None),  # the first of two
    "1c04 0000": (UTO, None, "malformed"),
    "1c04 8000": (UTO, None, "malformed"),
    "1c03 00": (UTO, None, "malformed"),
    "1c06 0000 001e": (UTO, None, "malformed"),
    "1c28" + 38 * "00": (UTO, None, "malformed"),  # all 40 bytes
    "fd06 4d49 c350": (IW, 40, None),  # 50000 segments
    "fd06 4d49 0000": (IW, None, "malformed"),
    "fd05 4d49 14": (IW, None, "malformed"),
    "fd04 4d49": (IW, None, "malformed"),
    "fd05 4d43 63": (CC, None, "unknown"),
    "fd05 4d43 " + NOT_ACCEPTED.hex(): (CC, None, "not_allowed"),
    "fd06 4d43 0100": (CC, None, "malformed"),
    "fd06 4d44 ffff": (ACK, None, None),
    "fd06 4d44 0004": (ACK, None, "malformed"),
}
NOTHING = [
    "1c08 001e",  # longer than the header
    "01 1c28 001e",
    "1c00 001e",
    "1c01 001e",
    "01 01 01 1c",  # kind alone
    "fd03 4d",
    "fd02",
    "fd05 ffff 01",  # another experiment
    "fe05 4d43 01",  # the other experimental kind
    "00 1c04 001e",  # after the end of the list
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(client=1, server=1) as lab:
        for cgroup in ("server", "far"):
            lab.cgroup(cgroup)
        trusted = ["192.0.2.0/24", "10.77.0.0/24", "2001:db8::/32", "fd00:77:0::/48"]
        far = {IW: {"accept": {"max": 40, "from": trusted}}}
        lab.service(with_options(lab, {"server": ACCEPT, "far": far}), ns="server")
        yield lab


def forged(lab: Lab, connection: Connection, options: str) -> None:
    """The server gets a packet with these options before it has sent anything."""

    def send() -> None:
        connection.client.do("send", bytes=100)
        connection.server.do("receive", bytes=100)

    template = observe(lab.netns("client"), connection.client.get()["ports"], send)
    inject(lab.netns("client"), template, bytes.fromhex(options.replace(" ", "")))


def reported(connection: Connection, plugin: str) -> PluginReport:
    """What the server made of the plugin's option, once it has it."""
    return wait_for(
        connection.server.reports, f"a report of {plugin}", until=lambda reports: plugin in reports
    )[plugin]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("options", CASES)
def test_option_from_the_wire(lab: Lab, options: str, family: int) -> None:
    """Valid ones are cut to the policy's limits, others refused with the reason; the connection goes on."""
    plugin, applied, refused = CASES[options]
    with Connection(lab, family=family) as connection:
        forged(lab, connection, options)
        report = reported(connection, plugin)
        assert report.refused == refused
        if applied is not None:
            assert report.applied == applied
        got = connection.server.get()
        if plugin == UTO:
            assert got["user_timeout"] == (applied or 0)
        assert got["cwnd"] == (40 if applied == 40 else 10)
        assert got["congestion"] == USUAL
        connection.exchange()


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_no_option_of_ours(lab: Lab, family: int) -> None:
    """Truncated options, bad lengths and other experiments leave no trace, and no connection breaks."""
    with Connection(lab, family=family) as connection:
        for options in NOTHING:
            forged(lab, connection, options)
        connection.exchange()
        assert connection.server.reports() == {}


def test_initial_window_too_late(lab: Lab) -> None:
    """Once data was sent, the window stays as it is."""
    with Connection(lab) as connection:
        connection.exchange()
        forged(lab, connection, "fd06 4d49 0014")
        report = reported(connection, IW)
        assert (report.applied, report.refused) == (None, "late")


@pytest.mark.parametrize("family", [4, 6])
def test_initial_window_from_an_untrusted_prefix(lab: Lab, family: int) -> None:
    """A peer outside of the trusted prefixes is refused, one bit of the prefix decides."""
    with Connection(lab, server_cgroup="far", family=family) as connection:
        forged(lab, connection, "fd06 4d49 0014")
        report = reported(connection, IW)
        assert (report.applied, report.refused) == (None, "untrusted")
        assert connection.server.get()["cwnd"] == 10


def test_first_request_counts(lab: Lab) -> None:
    """A congestion control is chosen once: a peer cannot make this end switch without end."""
    with Connection(lab) as connection:
        for name in ("reno", "cubic", "reno"):
            forged(lab, connection, f"fd05 4d43 {ALGORITHMS[name]:02x}")
        reported(connection, CC)
        connection.exchange()
        assert connection.server.get()["congestion"] == "reno"
