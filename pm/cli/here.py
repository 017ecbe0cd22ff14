# SPDX-License-Identifier: GPL-2.0-only
"""``check --here``: what in a valid configuration would do nothing on this machine, or make ``run`` fail."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from pm.config.document import Document, Loc, path_of
from pm.config.model import Config, Datapath
from pm.errors import PmError, Problem
from pm.linux.bpf.precompiled import check_objects
from pm.linux.host.cgroup_watcher import DEPTH_MAX
from pm.linux.host.cgroups import find_cgroup_root, walk
from pm.linux.host.probe import probe
from pm.path_managers.program import Program
from pm.policies.globs import AUTO
from pm.policies.policy_table import PolicyTable

INTERFACES = Path("/sys/class/net")

Finding = tuple[Loc, str]


def findings(document: Document, config: Config) -> list[Problem]:
    """Every finding, by line."""
    found = [*_system(config), *_files(config), *_interfaces(config), *_cgroups(config)]
    problems = [Problem(document.file, document.line_of(loc), path_of(loc), text) for loc, text in found]
    return sorted(problems, key=lambda problem: problem.line)


def _system(config: Config) -> Iterator[Finding]:
    checks = {check.name: check for check in probe(precompiled=check_objects)}
    for check in checks.values():
        if check.required and not check.ok:
            yield (), f"this system cannot run the service: {check.found}: {check.remedy}"
    patched = checks["bpf_datapath"]
    if patched.ok:
        return
    if config.datapath is Datapath.BPF:
        yield ("datapath",), f"`bpf` is not possible here: {patched.found}: {patched.remedy}"
    for i, policy in enumerate(config.policies):
        if policy.path_manager.name == Program.name and config.datapath is not Datapath.BPF:
            place = ("policies", i, "path_manager")
            yield place, f"`program` needs the bpf datapath: {patched.found}: {patched.remedy}"


def _files(config: Config) -> Iterator[Finding]:
    from pm.api.sockets import read_token, tls_context

    if tcp := config.api.tcp:
        try:
            read_token(tcp.token_file)
        except PmError as e:
            yield ("api", "tcp", "token_file"), str(e)
        try:
            if tcp.tls:
                tls_context(tcp.tls)
        except PmError as e:
            yield ("api", "tcp", "tls"), str(e)
    for i, policy in enumerate(config.policies):
        for j, plugin in enumerate(policy.options.plugins):
            if text := _unreadable(plugin.source):
                yield ("policies", i, "options", "plugins", j, "source"), text
        parameters = policy.path_manager.parameters
        if isinstance(parameters, Program.Parameters) and (text := _unreadable(parameters.source)):
            yield ("policies", i, "path_manager", Program.name, "source"), text


def _unreadable(path: str) -> str:
    if path and not (Path(path).is_file() and os.access(path, os.R_OK)):
        return f"{path} does not exist, or cannot be read: correct the path"
    return ""


def _interfaces(config: Config) -> Iterator[Finding]:
    there = [entry.name for entry in INTERFACES.iterdir()]
    for key in ("include", "exclude", "backup", "order"):
        for j, glob in enumerate(getattr(config.addresses, key)):
            if any(fnmatchcase(name, glob) for name in there):
                continue
            if key == "exclude" and re.search(r"[*?[]", glob):
                continue  # what is to be kept out may come later
            text = f"`{glob}` matches no interface of now"
            if other := _alternative(glob):
                text = f"`{glob}` is an alternative name: write `{other}`"
            yield ("addresses", key, j), text


def _alternative(name: str) -> str:
    """The interface that has this alternative name (``ip link property``); "" for none."""
    try:
        return socket.if_indextoname(socket.if_nametoindex(name))
    except OSError:
        return ""


def _cgroups(config: Config) -> Iterator[Finding]:
    try:
        root = find_cgroup_root()
    except PmError:
        return  # said by the system's checks
    table = PolicyTable(config.policies)
    matched = set()
    for _, path in walk(root):
        if path.count("/") <= DEPTH_MAX and (policy := table.direct(path)):
            matched.add(policy.name)
    for i, policy in enumerate(config.policies):
        if policy.name not in matched and policy.cgroup != AUTO:
            remedy = "`systemd-cgls` shows those there are; one that comes later matches then"
            yield ("policies", i, "cgroup"), f"`{policy.cgroup}` matches no cgroup of now: {remedy}"
