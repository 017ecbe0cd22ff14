# SPDX-License-Identifier: Apache-2.0
"""What BPF C and Python share is the same in both: BCC compiles assertions written from Python's side."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import Any, get_type_hints

import pytest
from annotated_types import Le, MaxLen

from pm.errors import PmError
from pm.linux.bpf import layouts, tcp_option_layouts, tcp_option_parameters
from pm.linux.bpf import local_address_maps as addresses
from pm.linux.bpf import path_manager_maps as path_managers
from pm.linux.bpf.objects import SOURCES, compile_object
from pm.linux.ip import packed_ip
from pm.path_managers.fullmesh import FullMesh
from pm.path_managers.ndiffports import NDiffPorts
from pm.path_managers.program import BUILT_IN as PATH_MANAGERS
from pm.path_managers.program import PROGRAM_PARAMETERS_MAX
from pm.policies import tcp_options
from pm.policies.built_in_options import ALGORITHMS_MAX, PLUGINS_MAX
from pm.policies.remote_addresses import RemoteFlag
from pm.sessions.address_ids import LAST_ID, MAX_ID
from pm.sessions.known_ways import DESTINATIONS_MAX

ADDRESS = ("family", "port", "ip6", "scope_id", "id", "ifindex", "flags")


def structure(name: str, layout: type[ctypes.Structure]) -> Iterator[str]:
    """The size of ``struct name``, and offset and size of each field."""
    yield assertion(f"sizeof(struct {name}) == {ctypes.sizeof(layout)}")
    for field, *_ in layout._fields_:
        yield from place(name, field, getattr(layout, field).offset, getattr(layout, field).size)


def packed(name: str, layout: Struct, *fields: str) -> Iterator[str]:
    """The same for a format of the module struct; ``fields`` are C's names of its values."""
    yield assertion(f"sizeof(struct {name}) == {layout.size}")
    zeros, ones = (layout.unpack(byte * layout.size) for byte in (b"\0", b"\xff"))
    assert len(fields) == len(zeros)
    for i, field in enumerate(fields):
        raw = layout.pack(*zeros[:i], ones[i], *zeros[i + 1 :])
        yield from place(name, field, raw.index(b"\xff"), raw.count(b"\xff"))


def place(name: str, field: str, offset: int, size: int) -> Iterator[str]:
    yield assertion(f"__builtin_offsetof(struct {name}, {field}) == {offset}")
    yield assertion(f"sizeof(((struct {name} *)0)->{field}) == {size}")


def enum(name: str, prefix: str, members: type[IntEnum], *only_in_c: str) -> Iterator[str]:
    """Equal values, and no enumerator that Python does not know: clang misses its case."""
    for member in members:
        yield assertion(f"{prefix}{member.name} == {member.value}")
    cases = " ".join(f"case {c}:" for c in (*(prefix + m.name for m in members), *only_in_c))
    yield f"static void all_of_{name}(enum {name} x) {{ switch (x) {{ {cases} break; }} }}"


def indices(each: str, names: tuple[str, ...]) -> Iterator[str]:
    """The macro ``each`` names these path managers or plugins, in this order."""
    yield f"enum {{ {each} PLACES }};"
    for i, name in enumerate(names):
        yield assertion(f"PLACE_{name} == {i}")
    yield assertion(f"PLACES == {len(names)}")


def assertion(fact: str) -> str:
    return f'_Static_assert({fact}, "{fact}");'


def limit(model: type[Any], field: str, kind: type[Any] = Le) -> int:
    """The upper limit in the annotation of a field."""
    notes = get_type_hints(model, include_extras=True)[field].__metadata__
    (found,) = (note for note in notes if isinstance(note, kind))
    return int(found.le if kind is Le else found.max_length)


def classifier() -> Iterator[str]:
    yield '#include "session.h"'
    yield '#include "loader_constants.h"'
    yield from structure("session_key", layouts.SessionKey)
    yield from structure("session_value", layouts.SessionValue)
    yield '#include "keepalive.h"'
    yield from packed("keepalive", layouts.KEEPALIVE, "idle_s", "interval_s", "count")
    yield '#include "final_figures.h"'
    key = "key.local", "key.remote", "key.local_port", "key.remote_port"
    figures = "retransmits", "bytes_acked", "bytes_received", "rtt_us"
    yield from packed("final_figures", layouts.FINAL_FIGURES, *key, *figures)
    yield from enum("counter", "COUNTER_", layouts.Counter, "COUNTERS")
    yield assertion(f"COUNTERS == {len(layouts.Counter)}")
    yield assertion(f"NETNS_COOKIE_PLACEHOLDER == {layouts.NETNS_COOKIE_PLACEHOLDER}")
    yield assertion(f"POLICY_ID_PLACEHOLDER == {layouts.POLICY_ID_PLACEHOLDER}")


def options() -> Iterator[str]:
    c = tcp_option_layouts
    yield '#include "option_parts/maps.h"'
    yield '#include "option_parts/plugins.h"'
    yield '#include "loader_constants.h"'
    yield from structure("option_parameters", c.OptionParameters)
    yield from structure("policy_parameters", c.PolicyParameters)
    yield from structure("option_record", c.OptionRecord)
    yield from structure("option_state", c.OptionState)
    yield from structure("prefix_key", c.PrefixKey)
    yield from structure("user_timeout_parameters", c.UserTimeoutParameters)
    yield from structure("congestion_control_parameters", c.CongestionControlParameters)
    yield from structure("algorithm", c.Algorithm)
    yield from structure("initial_window_parameters", c.InitialWindowParameters)
    yield from structure("delayed_ack_parameters", c.DelayedAckParameters)
    yield from enum("option_event", "OPTION_", c.OptionEvent, "OPTION_NOTHING", "OPTION_EVENTS")
    yield from enum("prefix_kind", "PREFIX_", c.PrefixKind)
    yield "#define PLACE(slot, name, unused) PLACE_##name = slot,"
    yield from indices("EACH_PLUGIN(PLACE, 0)", c.BUILT_IN)
    yield assertion(f"PLUGINS_PLACEHOLDER == {c.PLUGINS_PLACEHOLDER}")
    yield assertion(f"OPTION_SLOTS == {c.SLOTS}")
    yield assertion(f"OPTION_SLOTS >= PLACES + {PLUGINS_MAX}")
    yield assertion(f"OPTION_SLOTS >= PLACES + {limit(tcp_options.Options, 'plugins', MaxLen)}")
    yield assertion(f"OPTION_EVENTS == {c.EVENTS_PER_SLOT}")
    yield assertion(f"OPTION_PARAMETER_BYTES == {c.PARAMETER_BYTES}")
    yield assertion(f"OPTION_PARAMETER_BYTES / 8 == {tcp_options.PARAMETERS_MAX} + 1")
    yield assertion(f"OPTION_EXPERIMENTAL == {tcp_option_parameters.EXID_LENGTH}")
    yield assertion(f"PREFIX_FIXED_BITS == {c.PREFIX_FIXED_BITS}")
    yield assertion(f"TCP_CA_NAME_MAX == {c.CA_NAME_BYTES}")
    yield assertion(f"ALGORITHMS == {ALGORITHMS_MAX}")
    yield assertion(f"MS_MAX == {round(tcp_options.USER_TIMEOUT_MAX_S * 1000)}")
    yield assertion(f"FRACTION_ONE == {tcp_option_parameters.FRACTION_ONE}")
    yield assertion(f"SEGMENTS_MAX == {limit(tcp_options.DelayedAckRequest, 'segments')}")


def path_manager() -> Iterator[str]:
    c = path_managers
    yield '#include "path_manager_parts/maps.h"'
    yield '#include "path_manager_parts/path_managers.h"'
    values = [f"value[{i}]" for i in range(c.PARAMETERS_MAX)]
    starts = ("start_after_ns", "start_after_bytes", "open_interval_ns", "open_burst_ns")
    accepts = ("accept_max_subflows", "accept_listed")
    yield from packed("path_parameters", c._PARAMETERS, *starts, *accepts, *values)
    yield from packed("remote_prefix", c._PREFIX, "length", "ip")
    for flag in RemoteFlag:
        yield assertion(f"REMOTE_FLAG_{flag.name} == {flag.value}")
    yield from packed("accepted_peer", c._PEER, "length", "policy", "ip")
    yield assertion(f"sizeof(struct up_address) == {len(packed_ip('10.0.0.1'))}")
    yield assertion(f"UP_ADDRESSES == {addresses.UP_ADDRESSES_MAX}")
    yield from packed("up", addresses._UP, "ifindex", "generation")
    yield assertion(f"INTERFACES == {addresses.INTERFACES_MAX}")
    yield from packed("interface", addresses._INTERFACE, "flags", "generation", "kinds")
    for name in ("INTERFACE_USABLE", "INTERFACE_BACKUP", "INTERFACE_LINK_LOCAL"):
        yield assertion(f"{name} == {getattr(addresses, name)}")
    yield from place("look", "follow", 0, 4)
    yield from place("look", "generation", 4, 4)
    yield assertion(f"SLOT_ALLOWED == {addresses.SLOT_ALLOWED}")
    yield assertion(f"SLOT_LOCK_NS == {round(addresses.SLOT_LOCK_S * 1e9)}")
    yield assertion(f"SLOT_IDS > {LAST_ID} && SLOT_IDS + LOCALS - 1 <= {MAX_ID}")
    yield assertion(f"ROUTES == {c.ROUTES_MAX}")
    yield assertion(f"ROUTES >= {DESTINATIONS_MAX}")
    yield assertion(f"sizeof(struct destination) == {c._DESTINATION.size}")
    yield from place("destination", "mark", 16, 4)
    yield from place("destination", "port", 20, 4)
    yield from packed("route", c._ROUTE, "unroutable", "bound")
    yield from packed("bpf_mptcp_addr", addresses._ADDRESS, *ADDRESS)
    yield from place("claim", "policy", 0, c._POLICY.size)
    yield from enum("claim_counter", "CLAIM_COUNTER_", c.ClaimCounter, "CLAIM_COUNTERS")
    yield assertion(f"CLAIM_COUNTERS == {len(c.ClaimCounter)}")
    yield "#define PLACE(name) PLACE_##name,"
    yield from indices("EACH_PATH_MANAGER(PLACE)", tuple(PATH_MANAGERS))
    yield assertion(f"BPF_MPTCP_ADDR_BACKUP == {addresses.ADDRESS_BACKUP}")
    yield assertion(f"LOCALS == {addresses.LOCALS}")
    yield assertion("(LOCALS & (LOCALS - 1)) == 0 && (REMOTES & (REMOTES - 1)) == 0")  # masks of indices
    yield assertion("sizeof(((struct remote *)0)->pairs) == (1 + LOCALS) * sizeof(struct pair)")
    yield assertion(f"PARAMETERS == {PROGRAM_PARAMETERS_MAX} + 1")
    yield assertion(f"SUBFLOWS_MAX == {limit(NDiffPorts.Parameters, 'subflows')}")
    subflows = limit(FullMesh.Parameters, "max_subflows")
    yield assertion(f"BEYOND > {subflows}")
    yield assertion(f"(u8)-1 > {subflows} && sizeof(struct pair) == 4 * sizeof(u8)")


async def compile_assertions(directory: Path, *lines: str) -> str:
    """What the compiler says, "" where all assertions hold."""
    source = directory / "layouts.c"
    source.write_text("\n".join(['#pragma clang diagnostic error "-Wswitch"', *lines, ""]))
    try:
        compiled = await compile_object(source, log_file=directory / "log", cflags=[f"-I{SOURCES}"])
    except PmError:
        return (directory / "log").read_text()
    assert not compiled.programs
    return ""


@pytest.mark.parametrize("program", [classifier, options, path_manager])
async def test_layouts_are_the_same(program: Callable[[], Iterator[str]], tmp_path: Path) -> None:
    """Structures, enumerations, names and limits of each program agree."""
    assert await compile_assertions(tmp_path, *program()) == ""


class LateCookie(ctypes.Structure):
    _fields_ = [("policy", ctypes.c_uint64), ("cookie", ctypes.c_uint64)]


class OnlyClassified(IntEnum):
    CLASSIFIED = 0


WRONG = {
    "order of fields": (
        [*structure("session_value", LateCookie)],
        "offsetof(struct session_value, cookie) == 8",
    ),
    "order of values": (
        [*packed("session_value", Struct("=QQ"), "policy", "cookie")],
        "offsetof(struct session_value, cookie) == 8",
    ),
    "size": ([*packed("session_value", Struct("=Q"), "cookie")], "sizeof(struct session_value) == 8"),
    "not in Python": ([*enum("counter", "COUNTER_", OnlyClassified, "COUNTERS")], "'COUNTER_FAILED' and"),
    "number": ([assertion("COUNTERS == 4")], "COUNTERS == 4"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_difference_is_noticed(what: str, tmp_path: Path) -> None:
    """The compiler says which fact is wrong."""
    lines, complaint = WRONG[what]
    assert complaint in await compile_assertions(tmp_path, '#include "session.h"', *lines)
