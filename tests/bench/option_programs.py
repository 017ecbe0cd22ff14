# SPDX-License-Identifier: Apache-2.0
"""The programs that the benchmark of options compares, put on a laboratory's cgroups and taken off again.

Ours are loaded and attached as a service does, but without one: nothing else of a service runs meanwhile,
and where no program is wanted none is attached.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pm.config.load import load_config
from pm.linux.bpf.attachments import Attachments
from pm.linux.bpf.classifier_maps import Classifier
from pm.linux.bpf.objects import SOURCES, BpfObject, compile_object
from pm.linux.bpf.tcp_option_maps import ProgramKey, TcpOptionAttachments, compiler_flags, read_kernel
from pm.linux.bpf.tcp_option_parameters import policy_entries
from pm.linux.host.cgroups import directory_of, find_cgroup_root
from tests.lab.attached import sock_ops_programs
from tests.lab.lab import Lab, Side
from tests.lab.netns import inside
from tests.lab.sock_ops import link
from tests.lab.tcp_options import with_options

HERE = Path(__file__).parent
# Not the machine's: a namespace may choose this one on every kernel, and it does not pace.
CONGESTION_CONTROL = "reno"
# What the kernel does anyway, as far as options can say it: the cost is that of the programs.
OPTIONS = {
    "client": {
        "user_timeout": {"advertise": "30s"},
        "congestion_control": {"request": CONGESTION_CONTROL},
        "initial_window": {"request": 10},
        "delayed_ack": {"request": {"fraction": 0.25}},
    },
    "server": {
        "user_timeout": {"accept": {"min": "5s", "max": "10min"}},
        "congestion_control": {"accept": [CONGESTION_CONTROL]},
        "initial_window": {"accept": {"max": 40, "from": ["127.0.0.0/8", "10.77.0.0/16"]}},
        "delayed_ack": {"accept": True},
    },
}


class Variant(NamedTuple):
    """``programs`` of bpf/every_packet.c by side; ``shipped_to``: the cgroup of each side that gets ours."""

    name: str
    bulk_limit: float | None = None
    small_limit: float | None = None
    programs: Mapping[Side, str] = {}
    shipped_to: Mapping[Side, str] = {}


Loaded = tuple[Attachments[Any], Any]  # programs of one kind, and the key of the one to attach


class Programs:
    """Everything compiled, and ours loaded. ``namespaces``: where each side's processes are."""

    def __init__(self, lab: Lab, namespaces: Mapping[Side, Side]) -> None:
        self._lab = lab
        self._root = find_cgroup_root()
        self._every_packet = _compile(lab, _beside_stub(lab))
        self._shipped: dict[Side, list[Loaded]] = {}
        classify, options = _compile(lab, SOURCES / "classify.c"), _compile(lab, SOURCES / "options.c")
        for side, ns in namespaces.items():
            lab.sysctl(ns, net__ipv4__tcp_congestion_control=CONGESTION_CONTROL)
            self._shipped[side] = inside(lab.netns(ns), partial(self._load, side, classify, options))

    def close(self) -> None:
        for loaded in self._shipped.values():
            for attachments, _ in loaded:
                attachments.close(keep=False)

    @contextmanager
    def in_force(self, variant: Variant) -> Iterator[None]:
        with ExitStack() as stack:
            for side, name in variant.programs.items():
                stack.enter_context(self._every_packet_on(side, name))
            for side, cgroup in variant.shipped_to.items():
                directory = self._directory(cgroup)
                number = directory.stat().st_ino
                for attachments, program in self._shipped[side]:
                    attachments.attach(directory, number, program)
                    stack.callback(attachments.detach, number)
            yield

    def attached(self, cgroup: str) -> tuple[int, ...]:
        """Ids of the sock_ops programs on a cgroup of the laboratory's."""
        return _attached(self._directory(cgroup))

    def foreign(self) -> bool:
        """Whether any cgroup of this machine has a sock_ops program: then no socket is without its costs."""
        return any(_attached(path) for path in (self._root, *self._root.rglob("*/")))

    def _load(self, side: Side, classify: BpfObject, options: BpfObject) -> list[Loaded]:
        file = self._lab.directory / f"{side}.yaml"
        file.write_text(yaml.safe_dump(with_options(self._lab, {side: OPTIONS[side]})))
        config = load_config(str(file)).config
        (policy,) = config.policies
        entries = policy_entries(policy, config.tcp_options, [], read_kernel(counts_segments=False))
        log_file = self._lab.directory / "verifier.log"
        programs = TcpOptionAttachments.open(options, bpffs=None, log_file=log_file)
        programs.write([entries])
        classifier = Classifier.open(classify, bpffs=None, log_file=log_file)
        return [(classifier, policy.name), (programs, ProgramKey(policy.name, entries.plugins, ""))]

    @contextmanager
    def _every_packet_on(self, side: Side, name: str) -> Iterator[None]:
        log_file = self._lab.directory / "verifier.log"
        program = self._every_packet.load(name, maps={}, constants={}, log_file=log_file)
        attached = link(program, self._directory(side))
        try:
            yield
        finally:
            for descriptor in (attached, program):
                os.close(descriptor)

    def _directory(self, cgroup: str) -> Path:
        return directory_of(self._root, self._lab.cgroup_path(cgroup))


def _attached(directory: Path) -> tuple[int, ...]:
    try:
        return sock_ops_programs(directory)
    except FileNotFoundError:
        return ()


def _compile(lab: Lab, source: Path) -> BpfObject:
    flags = compiler_flags([]) if source.name == "options.c" else []
    return asyncio.run(compile_object(source, log_file=lab.directory / "compiler.log", cflags=flags))


def _beside_stub(lab: Lab) -> Path:
    """BCC looks for its stub of the kernel's headers beside the source."""
    shutil.copytree(SOURCES / "stub", lab.directory / "stub")
    return Path(shutil.copy(HERE / "bpf/every_packet.c", lab.directory))
