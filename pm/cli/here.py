# SPDX-License-Identifier: Apache-2.0
"""``check --here``: what in a valid configuration would do nothing on this machine, or make ``run`` fail."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from pm.config.document import Document, Loc, path_of
from pm.config.model import Config, Datapath, RecordsTo
from pm.errors import ConfigError, PmError, Problem
from pm.linux.bpf.precompiled import check_objects
from pm.linux.host.cgroup_watcher import DEPTH_MAX
from pm.linux.host.cgroups import find_cgroup_root, walk
from pm.linux.host.netns import in_initial_namespace
from pm.linux.host.probe import probe
from pm.names import show_name
from pm.notation import parse_listen
from pm.path_managers.program import Program
from pm.policies.globs import AUTO
from pm.policies.policy_table import PolicyTable
from pm.selection import check_policies, checks_for, choose_selection

Finding = tuple[Loc, str]


def findings(document: Document, config: Config) -> list[Problem]:
    """Every finding, by line."""
    found = [*_system(config, document.file), *_files(config), *_api(config)]
    found += [*_interfaces(config), *_cgroups(config)]
    problems = [Problem(document.file, document.line_of(loc), path_of(loc), text) for loc, text in found]
    return sorted(problems, key=lambda problem: problem.line)


def _system(config: Config, file: str) -> Iterator[Finding]:
    probed = probe(precompiled=check_objects)
    mode = choose_selection(config.selection, probed)
    checks = {check.name: check for check in checks_for(mode, probed)}
    for check in checks.values():
        if check.required and not check.ok:
            yield (), f"this system cannot run the service: {check.found}: {check.remedy}"
    try:
        check_policies(config, file, mode, initial=in_initial_namespace())
    except ConfigError as e:
        for problem in e.problems:
            yield (*problem.path.split("."),), f"`run` refuses this here: {problem.message}"
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
            if remedy := read_token(tcp.token_file).remedy:
                yield ("api", "tcp", "token_file"), f"{tcp.token_file} can be read by others: `{remedy}`"
        except PmError as e:
            yield ("api", "tcp", "token_file"), str(e)
        try:
            if tcp.tls:
                tls_context(tcp.tls)
        except PmError as e:
            yield ("api", "tcp", "tls"), str(e)
    if config.records and config.records.to is RecordsTo.FILE:
        directory = Path(config.records.path).parent
        if not directory.is_dir() or not os.access(directory, os.W_OK):
            yield ("records", "path"), f"no file can be made in {directory}: create the directory"
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


def _api(config: Config) -> Iterator[Finding]:
    """Where the API cannot be. A port that is in use may be that of a service that runs already."""
    if path := config.api.unix:
        directory = next(place for place in Path(path).parents if place.exists())
        if Path(path).exists() and not Path(path).is_socket():
            yield ("api", "unix"), f"{path} is there already, and is no socket: remove it"
        elif not directory.is_dir() or not os.access(directory, os.W_OK) or directory.is_relative_to("/proc"):
            yield ("api", "unix"), f"{path} cannot be created in {directory}: choose another path"
    for key, listen in (("tcp", config.api.tcp), ("probes", config.api.probes)):
        if listen and not _is_here(str(parse_listen(listen.listen)[0])):
            yield ("api", key, "listen"), f"no interface has the address of `{listen.listen}` now"


def _is_here(ip: str) -> bool:
    """Whether a socket can have this address."""
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as sock:
        try:
            sock.bind((ip, 0))
        except OSError:
            return False
    return True


def interface_names() -> list[str]:
    """Those of this network namespace (/sys may be that of another)."""
    return [show_name(os.fsencode(name)) for _, name in socket.if_nameindex()]


def _interfaces(config: Config) -> Iterator[Finding]:
    there = interface_names()
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
