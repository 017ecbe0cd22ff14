# SPDX-License-Identifier: GPL-2.0-only
"""What is packed and decoded by hand is byte for byte what pyroute2 makes and reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pm.kernel import EventType
from pm.linux.netlink.mptcp_pm_codec import complete, decode_event, pack_command, pack_create_subflow, prepare
from pm.linux.netlink.mptcp_pm_messages import Command, mptcp_event_msg

v4 = st.ip_addresses(v=4).map(str)
v6 = st.ip_addresses(v=6).map(lambda a: "fd00::1" if getattr(a, "ipv4_mapped", None) else str(a))
u8, u16, u32 = st.integers(0, 255), st.integers(0, 65535), st.integers(0, 2**32 - 1)


@given(st.tuples(v4, v4) | st.tuples(v6, v6), u32, u8, u16, st.booleans(), u32)
def test_create_subflow_is_what_pyroute2_packs(
    ips: tuple[str, str], token: int, local_id: int, port: int, backup: bool, sequence: int
) -> None:
    """The hot command, packed by struct, equals pyroute2's encoding for any values."""
    local, remote = ips
    n = "6" if ":" in local else "4"
    family = ("MPTCP_PM_ADDR_ATTR_FAMILY", 10 if n == "6" else 2)
    expected = pack_command(
        30,
        sequence,
        Command.SUBFLOW_CREATE,
        (
            "MPTCP_PM_ATTR_ADDR",
            {
                "attrs": [
                    family,
                    ("MPTCP_PM_ADDR_ATTR_ID", local_id),
                    (f"MPTCP_PM_ADDR_ATTR_ADDR{n}", local),
                    ("MPTCP_PM_ADDR_ATTR_FLAGS", 6 if backup else 2),
                ]
            },
            0x8000,
        ),
        ("MPTCP_PM_ATTR_TOKEN", token),
        (
            "MPTCP_PM_ATTR_ADDR_REMOTE",
            {
                "attrs": [
                    family,
                    (f"MPTCP_PM_ADDR_ATTR_ADDR{n}", remote),
                    ("MPTCP_PM_ADDR_ATTR_PORT", port),
                ]
            },
            0x8000,
        ),
    )
    assert pack_create_subflow(30, sequence, token, local, local_id, remote, port, backup=backup) == expected
    assert complete(prepare(expected), token) == expected


@given(st.tuples(v4, v4) | st.tuples(v6, v6), u32, u8, u8, u16, u16, st.booleans(), u8)
def test_event_is_read_as_pyroute2_wrote_it(
    ips: tuple[str, str],
    token: int,
    local_id: int,
    remote_id: int,
    sport: int,
    dport: int,
    backup: bool,
    error: int,
) -> None:
    """Decoding by hand recovers every field of an event."""
    local, remote = ips
    n = "6" if ":" in local else "4"
    message = mptcp_event_msg()
    message["cmd"] = EventType.SUB_CLOSED
    message["version"] = 1
    message["attrs"] = [
        ("MPTCP_ATTR_TOKEN", token),
        ("MPTCP_ATTR_FAMILY", 10 if n == "6" else 2),
        (f"MPTCP_ATTR_SADDR{n}", local),
        (f"MPTCP_ATTR_DADDR{n}", remote),
        ("MPTCP_ATTR_SPORT", sport),
        ("MPTCP_ATTR_DPORT", dport),
        ("MPTCP_ATTR_LOC_ID", local_id),
        ("MPTCP_ATTR_REM_ID", remote_id),
        ("MPTCP_ATTR_BACKUP", int(backup)),
        ("MPTCP_ATTR_ERROR", error),
        ("MPTCP_ATTR_RESET_REASON", 3),
    ]
    message.encode()
    got = decode_event(bytes(message.data))
    assert got == (
        EventType.SUB_CLOSED,
        token,
        int(n),
        local,
        sport,
        remote,
        dport,
        local_id,
        remote_id,
        backup,
        error,
        3,
        False,
        False,
    )


def test_v4_mapped_addresses_become_ipv4_text() -> None:
    """A dual-stack socket's IPv4 peer reads as IPv4, its socket family stays 6."""
    message = mptcp_event_msg()
    message["cmd"] = EventType.CREATED
    message["attrs"] = [
        ("MPTCP_ATTR_FAMILY", 10),
        ("MPTCP_ATTR_SADDR6", "::ffff:10.0.0.1"),
        ("MPTCP_ATTR_SERVER_SIDE", 1),
    ]
    message.encode()
    got = decode_event(bytes(message.data))
    assert (got.local, got.family, got.server_side) == ("10.0.0.1", 6, True)


def test_an_attribute_of_no_length_ends_the_decoding() -> None:
    """A message that is not the kernel's cannot hang the service."""
    assert decode_event(bytes(40)).token == 0
