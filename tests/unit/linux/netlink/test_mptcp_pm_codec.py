# SPDX-License-Identifier: Apache-2.0
"""What is packed and decoded by hand is byte for byte what pyroute2 makes and reads."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pm.kernel import EventType
from pm.linux.netlink import mptcp_pm_codec as codec
from pm.linux.netlink import mptcp_pm_messages
from pm.linux.netlink.mptcp_pm_codec import decode_event
from pm.linux.netlink.mptcp_pm_messages import Command
from pm.linux.netlink.pyroute2_family import mptcp_event_msg, mptcp_pm_msg

FAMILY_ID = 30

v4 = st.ip_addresses(v=4).map(str)
v6 = st.ip_addresses(v=6).map(lambda a: "fd00::1" if getattr(a, "ipv4_mapped", None) else str(a))
u8, u16, u32 = st.integers(0, 255), st.integers(0, 65535), st.integers(0, 2**32 - 1)
pairs = st.tuples(v4, v4) | st.tuples(v6, v6)
ports = st.integers(1, 65535)


def pyroute2_command(command: Command, *attributes: tuple[object, ...]) -> bytes:
    """A command by pyroute2; ``attributes`` are its (name, value) or (name, value, flags) tuples."""
    message = mptcp_pm_msg()
    message["cmd"] = command
    message["version"] = 1
    message["attrs"] = list(attributes)
    message["header"]["type"] = FAMILY_ID
    message["header"]["flags"] = 5  # NLM_F_REQUEST | NLM_F_ACK
    message.encode()
    return bytes(message.data)


def pyroute2_address(attribute: str, ip: str, **fields: int) -> tuple[object, ...]:
    """A nested address; ``fields`` are its other attributes in the kernel's order of our messages."""
    n = "6" if ":" in ip else "4"
    attributes: list[tuple[str, object]] = [("MPTCP_PM_ADDR_ATTR_FAMILY", 10 if n == "6" else 2)]
    if "ID" in fields:
        attributes.append(("MPTCP_PM_ADDR_ATTR_ID", fields["ID"]))
    attributes.append((f"MPTCP_PM_ADDR_ATTR_ADDR{n}", ip))
    attributes += [(f"MPTCP_PM_ADDR_ATTR_{f}", fields[f]) for f in ("FLAGS", "PORT") if f in fields]
    return attribute, {"attrs": attributes}, 0x8000


def mapped(ip: str) -> str:
    return ip if ":" in ip else f"::ffff:{ip}"


@given(pairs, u32, u8, u16, st.booleans())
def test_create_subflow_is_what_pyroute2_packs(
    ips: tuple[str, str], token: int, local_id: int, port: int, backup: bool
) -> None:
    """The hot command, packed by struct, equals pyroute2's encoding for any values."""
    local, remote = ips
    command = codec.pack_create_subflow(FAMILY_ID, local, local_id, remote, port, backup=backup)
    assert codec.complete(command, token) == pyroute2_command(
        Command.SUBFLOW_CREATE,
        pyroute2_address("MPTCP_PM_ATTR_ADDR", local, ID=local_id, FLAGS=6 if backup else 2),
        ("MPTCP_PM_ATTR_TOKEN", token),
        pyroute2_address("MPTCP_PM_ATTR_ADDR_REMOTE", remote, PORT=port),
    )


@given(pairs, u32, ports, ports, st.sampled_from((4, 6)))
def test_destroy_subflow_is_what_pyroute2_packs(
    ips: tuple[str, str], token: int, local_port: int, remote_port: int, socket_family: int
) -> None:
    """On an IPv6 socket, IPv4 addresses are v4-mapped."""
    local, remote = ips
    text = mapped if socket_family == 6 else str
    assert codec.pack_destroy_subflow(
        FAMILY_ID, token, local, local_port, remote, remote_port, socket_family=socket_family
    ) == pyroute2_command(
        Command.SUBFLOW_DESTROY,
        pyroute2_address("MPTCP_PM_ATTR_ADDR", text(local), PORT=local_port),
        ("MPTCP_PM_ATTR_TOKEN", token),
        pyroute2_address("MPTCP_PM_ATTR_ADDR_REMOTE", text(remote), PORT=remote_port),
    )


@given(pairs, u32, ports, ports, st.booleans())
def test_set_backup_is_what_pyroute2_packs(
    ips: tuple[str, str], token: int, local_port: int, remote_port: int, backup: bool
) -> None:
    """The flags say backup or nothing; they are there in both cases."""
    local, remote = ips
    assert codec.pack_set_backup(
        FAMILY_ID, token, local, local_port, remote, remote_port, backup=backup
    ) == pyroute2_command(
        Command.SET_FLAGS,
        pyroute2_address("MPTCP_PM_ATTR_ADDR", local, FLAGS=4 if backup else 0, PORT=local_port),
        ("MPTCP_PM_ATTR_TOKEN", token),
        pyroute2_address("MPTCP_PM_ATTR_ADDR_REMOTE", remote, PORT=remote_port),
    )


@given(v4 | v6, u32, u8)
def test_announce_is_what_pyroute2_packs(ip: str, token: int, local_id: int) -> None:
    """ADD_ADDR for any address and id."""
    assert codec.pack_announce(FAMILY_ID, token, ip, local_id) == pyroute2_command(
        Command.ANNOUNCE,
        pyroute2_address("MPTCP_PM_ATTR_ADDR", ip, ID=local_id, FLAGS=1),
        ("MPTCP_PM_ATTR_TOKEN", token),
    )


@given(u32, u8)
def test_withdraw_is_what_pyroute2_packs(token: int, local_id: int) -> None:
    """RM_ADDR for any id."""
    assert codec.pack_withdraw(FAMILY_ID, token, local_id) == pyroute2_command(
        Command.REMOVE, ("MPTCP_PM_ATTR_TOKEN", token), ("MPTCP_PM_ATTR_LOC_ID", local_id)
    )


@given(u32)
def test_the_token_of_an_event_is_what_pyroute2_packs(token: int) -> None:
    """What is armed is found by these bytes, which follow the two headers of an event."""
    message = mptcp_event_msg()
    message["attrs"] = [("MPTCP_ATTR_TOKEN", token)]
    message.encode()
    assert codec.token_attribute(token) == bytes(message.data)[20:28]


# Attributes of an event but for the addresses, with any values; all of them are optional.
EVENT_ATTRIBUTES: dict[str, st.SearchStrategy[Any]] = {
    "MPTCP_ATTR_TOKEN": u32,
    "MPTCP_ATTR_LOC_ID": u8,
    "MPTCP_ATTR_REM_ID": u8,
    "MPTCP_ATTR_SPORT": u16,
    "MPTCP_ATTR_DPORT": u16,
    "MPTCP_ATTR_BACKUP": st.integers(0, 1),
    "MPTCP_ATTR_ERROR": u8,
    "MPTCP_ATTR_FLAGS": u16,
    "MPTCP_ATTR_TIMEOUT": u32,
    "MPTCP_ATTR_IF_IDX": st.integers(-(2**31), 2**31 - 1),
    "MPTCP_ATTR_RESET_REASON": u32,
    "MPTCP_ATTR_RESET_FLAGS": u32,
    "MPTCP_ATTR_SERVER_SIDE": st.integers(0, 1),
}


@given(st.sampled_from(EventType), pairs, st.fixed_dictionaries({}, optional=EVENT_ATTRIBUTES), st.randoms())
def test_event_is_read_as_pyroute2_reads_it(
    kind: EventType, ips: tuple[str, str], fields: dict[str, Any], random: Any
) -> None:
    """Decoding by hand agrees with pyroute2's for any attributes in any order."""
    n = "6" if ":" in ips[0] else "4"
    attributes = [
        *fields.items(),
        ("MPTCP_ATTR_FAMILY", 10 if n == "6" else 2),
        (f"MPTCP_ATTR_SADDR{n}", ips[0]),
        (f"MPTCP_ATTR_DADDR{n}", ips[1]),
    ]
    random.shuffle(attributes)
    message = mptcp_event_msg()
    message["cmd"] = kind
    message["version"] = 1
    message["attrs"] = attributes
    message.encode()
    data = bytes(message.data)
    read = mptcp_event_msg(data)
    read.decode()

    def field(name: str, default: object = 0) -> Any:
        value = read.get_attr(f"MPTCP_ATTR_{name}")
        return default if value is None else value

    assert decode_event(data) == (
        read["cmd"],
        field("TOKEN"),
        4 if field("FAMILY") == 2 else 6,
        field(f"SADDR{n}"),
        field("SPORT"),
        field(f"DADDR{n}"),
        field("DPORT"),
        field("LOC_ID"),
        field("REM_ID"),
        bool(field("BACKUP")),
        field("ERROR"),
        field("RESET_REASON", -1),
        bool(field("SERVER_SIDE") or field("FLAGS") & 2),
        bool(field("FLAGS") & 1),
    )


@given(pairs, u32, u8, u8, u16, u16, st.booleans(), u8)
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


def test_names_have_the_numbers_that_pyroute2_gives_them() -> None:
    """The constants of attributes agree with pyroute2's tables, where the position is the number."""
    tables = (
        ("MPTCP_PM_ADDR_ATTR_", mptcp_pm_msg.pm_addr.nla_map),
        ("MPTCP_PM_ATTR_", mptcp_pm_msg.nla_map),
        ("MPTCP_ATTR_", mptcp_event_msg.nla_map),
    )
    for prefix, nla_map in tables:
        numbers = {entry[0]: number for number, entry in enumerate(nla_map)}
        ours = {name: value for name, value in vars(mptcp_pm_messages).items() if name.startswith(prefix)}
        assert ours
        assert ours == {name: numbers[name] for name in ours}
