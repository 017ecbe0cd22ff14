# SPDX-License-Identifier: Apache-2.0
"""Options without a kernel: which program goes where, what the maps hold, what REST and metrics show."""

from __future__ import annotations

import io
import ipaddress
import re
import struct
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from rich.console import Console

from pm.api.views import policy_view, session_detail_view, status_view
from pm.cli.session_report import session_report
from pm.errors import PmError
from pm.linux.bpf import tcp_option_layouts as option_layouts
from pm.linux.bpf.tcp_option_layouts import (
    BUILT_IN,
    CongestionControlParameters,
    DelayedAckParameters,
    OptionEvent,
    OptionParameters,
    OptionRecord,
    PolicyParameters,
    PrefixKey,
    UserTimeoutParameters,
)
from pm.linux.bpf.tcp_option_maps import compiler_flags
from pm.linux.bpf.tcp_option_parameters import (
    KernelOptionSupport,
    PolicyEntries,
    policy_entries,
    third_parties_of,
    unavailable,
)
from pm.linux.bpf.third_party import ThirdParty
from pm.path_managers.choice import PathManagerChoice
from pm.policies.built_in_options import BUILT_IN_OPTIONS, KIND_EXPERIMENT
from pm.policies.model import Policy
from pm.policies.tcp_options import (
    CongestionControl,
    DelayedAck,
    DelayedAckRequest,
    Exids,
    InitialWindow,
    InitialWindowLimits,
    InitialWindowRule,
    OptionPlugin,
    Options,
    TcpOptions,
    UserTimeout,
    UserTimeoutLimits,
)
from pm.programs.attach import MatchedCgroup
from pm.programs.tcp_option_programs import CompiledOptions, PluginReport, plugin_reports, wanted_programs
from tests.unit.api.plane import CGROUP, Plane, make_session
from tests.unit.builders import at

KERNEL = KernelOptionSupport(
    congestion_control="cubic",
    congestion_controls=frozenset({"cubic", "reno"}),
    counts_segments=False,
    delayed_ack_least_us=8000,
)


def policy(options: Options, name: str = "a") -> Policy:
    return Policy(name=name, cgroup=f"/{name}", path_manager=PathManagerChoice("none", None), options=options)


def blocks(options: Options) -> dict[int, OptionParameters]:
    """What the program gets, by slot."""
    some = policy(options)
    entries = policy_entries(some, TcpOptions(), third_parties_of([some]), KERNEL)
    (value,) = entries.parameters.values()
    slots = PolicyParameters.from_buffer_copy(value).slots
    found = {slot: block for slot, block in enumerate(slots) if block.search[0]}
    assert entries.plugins == sum(1 << slot for slot in found)
    return found


def test_user_timeout_entry() -> None:
    """Durations in milliseconds; kind 28 by itself; sends and listens as the policy says."""
    limits = UserTimeoutLimits(min=5.0, max=600.0)
    block = blocks(Options(user_timeout=UserTimeout(advertise=30.0, accept=limits)))[1]
    assert (bytes(block.search), block.sends, block.listens) == (b"\x1c\0\0\0", 1, 1)
    parameters = UserTimeoutParameters.from_buffer_copy(bytes(block.plugin))
    assert (parameters.advertised_ms, parameters.lower_ms, parameters.upper_ms) == (30_000, 5_000, 600_000)
    silent = blocks(Options(user_timeout=UserTimeout(accept=limits)))[1]
    assert (silent.sends, silent.listens) == (0, 1)


def test_congestion_control_entry() -> None:
    """Every configured id, allowed where the policy accepts it and the kernel has it."""
    options = Options(congestion_control=CongestionControl(request="bbr", accept=("cubic", "vegas")))
    block = blocks(options)[2]
    assert bytes(block.search) == b"\xfd\x04\x4d\x43"
    parameters = CongestionControlParameters.from_buffer_copy(bytes(block.plugin))
    assert (parameters.requested, parameters.usual) == (4, b"cubic")
    known = {a.name: (a.id, a.allowed) for a in parameters.algorithms[: parameters.count]}
    assert known == {b"reno": (1, 0), b"cubic": (2, 1), b"vegas": (3, 0), b"bbr": (4, 0)}
    assert unavailable(policy(options), KERNEL) == ["vegas"]


def test_initial_window_prefixes() -> None:
    """IPv4 prefixes are v4-mapped, so that one trie has both families; the value is in segments."""
    networks = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/16"))
    window = InitialWindow(
        accept=InitialWindowLimits(max=40, from_=networks),
        rules=(InitialWindowRule(to=ipaddress.ip_network("10.1.0.0/16"), segments=32),),
    )
    entries = policy_entries(policy(Options(initial_window=window)), TcpOptions(), [], KERNEL)
    found = {
        (key.kind, key.length - option_layouts.PREFIX_FIXED_BITS, bytes(key.ip)[:14]): int.from_bytes(
            v, "little"
        )
        for raw, v in entries.prefixes.items()
        for key in [PrefixKey.from_buffer_copy(raw)]
    }
    mapped = b"\0" * 10 + b"\xff\xff"
    assert found == {
        (0, 104, mapped + b"\x0a\0"): 40,
        (0, 16, b"\xfd" + b"\0" * 13): 40,
        (1, 112, mapped + b"\x0a\x01"): 32,
    }


def test_delayed_ack_entry() -> None:
    """The fraction is in 64ths; segments are counted only where the kernel can."""
    request = DelayedAckRequest(fraction=0.25, segments=4)
    block = blocks(Options(delayed_ack=DelayedAck(request=request)))[3]
    parameters = DelayedAckParameters.from_buffer_copy(bytes(block.plugin))
    assert (parameters.fraction, parameters.segments, parameters.counts_segments) == (16, 4, 0)
    assert parameters.least_us == 8000
    assert (block.sends, block.listens) == (1, 0)


def test_third_party_parameters(tmp_path: Path) -> None:
    """All policies' names have a place each, in the compiler's flags and in every policy's block."""
    source = tmp_path / "level.c"
    source.write_text(
        "level_start() level_compose() level_receive() "
        "PARAMETER(o, level_level) PARAMETER(o, level_highest) PARAMETER(o, level_unset)"
    )
    plugins = [
        OptionPlugin(name="level", source=str(source), exid=1, send=True, parameters={"level": 5}),
        OptionPlugin(name="level", source=str(source), exid=1, accept=True, parameters={"highest": 7}),
    ]
    policies = [policy(Options(plugins=(p,)), f"p{i}") for i, p in enumerate(plugins)]
    others = third_parties_of(policies)
    flags = compiler_flags(others)
    places = {"-DPARAMETER_level_highest=0", "-DPARAMETER_level_level=1", "-DPARAMETER_level_unset=42"}
    assert places <= set(flags)
    assert flags[-2:] == ["-include", str(source)]
    assert flags[0] == "-DTHIRD_PARTY_PLUGINS(X,...)=X(4,level,__VA_ARGS__)"
    values = []
    for some in policies:
        (value,) = policy_entries(some, TcpOptions(), others, KERNEL).parameters.values()
        values.append(struct.unpack_from("=QQ", PolicyParameters.from_buffer_copy(value).slots[4].plugin))
    assert values == [(0, 5), (7, 0)]


def test_unknown_third_party_parameter(tmp_path: Path) -> None:
    """A parameter that the file does not read is an error that says which it does."""
    source = tmp_path / "level.c"
    source.write_text("level_start() level_compose() level_receive() PARAMETER(o, level_level)")
    with pytest.raises(PmError, match="no parameter `levl`: it has level"):
        compiler_flags([ThirdParty("level", str(source), ("levl",))])


def test_no_options_no_entries() -> None:
    """A policy without options has nothing in the maps."""
    assert policy_entries(policy(Options()), TcpOptions(), [], KERNEL) == PolicyEntries(0, {}, {})


def places(**policies: str) -> dict[int, MatchedCgroup]:
    paths = {name: "/" + name.replace("_", "/") for name in policies}
    return {
        i: MatchedCgroup(paths[name], Path(paths[name]), policy)
        for i, (name, policy) in enumerate(policies.items(), start=1)
    }


def test_programs_where_they_are_needed() -> None:
    """Policies with options get their program; one without gets a shield below such a policy only."""
    options = CompiledOptions({"opt": PolicyEntries(5, {}, {})}, BUILT_IN, "digest", {})
    wanted = wanted_programs(places(a="opt", a_b="plain", a_b_c="opt", ab="plain", d="plain"), options)
    assert wanted == {1: ("opt", 5, "digest"), 2: ("plain", 0, "digest"), 3: ("opt", 5, "digest")}
    assert wanted_programs(places(a="plain"), CompiledOptions({}, BUILT_IN, "", {})) == {}


def test_report_of_a_socket() -> None:
    """Only plugins with something to tell, with the applied value and the last refusal."""
    record = OptionRecord(sent=0b10, received=0b100, applied=0b10, refused=0b100)
    record.value[1] = 30_000
    record.reason[2] = OptionEvent.NOT_ALLOWED
    assert plugin_reports(record, BUILT_IN) == [
        ("user_timeout", True, False, 30_000, None),
        ("congestion_control", False, True, None, "not_allowed"),
    ]


def test_rest_shows_options() -> None:
    """A session's options name their subflow; a policy's are as configured; status counts."""
    session = make_session(1)
    report = PluginReport("user_timeout", True, False, 30_000, None)
    view = session_detail_view(session, CGROUP, None, [], [(session.subflows[0].id, report)], [], at(1.7e9))
    assert view["options"] == [
        {
            "subflow": session.subflows[0].id,
            "option": "user_timeout",
            "sent": True,
            "received": False,
            "applied": 30_000,
            "refused": None,
        }
    ]
    limits = InitialWindowLimits(max=40, from_=(ipaddress.ip_network("10.0.0.0/8"),))
    shown = policy_view(policy(Options(initial_window=InitialWindow(accept=limits))), {}, 0)["options"]
    assert shown == {"initial_window": {"accept": {"max": 40, "from": ["10.0.0.0/8"]}}}
    plane = Plane()
    counted = status_view(plane.status(), plane.option_counters(), at(1.7e9))["options"]
    assert counted == {"user_timeout": {"sent": 4, "malformed": 1}}


def test_cli_shows_options() -> None:
    """`mptcp-pm session` has a line per subflow and option."""
    session = make_session(1)
    report = PluginReport("user_timeout", True, False, 30_000, None)
    view = session_detail_view(session, CGROUP, None, [], [(session.subflows[0].id, report)], [], at(1.7e9))
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(session_report(view))
    assert re.search(r"user_timeout +yes +– +30000 +–", console.export_text())


def test_built_in_options_are_declared_once() -> None:
    """The table names every option of a policy, its keys, whether it has an ExID, and slots without gaps."""
    models = {field.name: field for field in fields(Options) if field.name != "plugins"}
    assert [option.name for option in BUILT_IN_OPTIONS] == list(models)
    hints = get_type_hints(Options)
    for option in BUILT_IN_OPTIONS:
        (model,) = (kind for kind in get_args(hints[option.name]) if is_dataclass(kind))
        assert set(option.roles) == {field.name for field in fields(model)}
    experiments = [option.name for option in BUILT_IN_OPTIONS if option.kind == KIND_EXPERIMENT]
    assert experiments == [field.name for field in fields(Exids)]
    assert sorted(option.slot for option in BUILT_IN_OPTIONS) == list(range(len(BUILT_IN)))
