# SPDX-License-Identifier: Apache-2.0
"""How a session's policy is found: by the cgroup of its socket, or by its network namespace alone.

A container often sees no cgroup but its own. The policy for ``/`` is then that of the whole namespace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pm.config.model import Config, SelectionMode
from pm.errors import ConfigError, Problem
from pm.linux.bpf.tcp_option_parameters import has_options
from pm.linux.host.probe import has
from pm.linux.host.remedies import SEE_CGROUPS
from pm.linux.host.system_check import SystemCheck
from pm.policies.globs import AUTO
from pm.policies.policy_table import PolicyTable

ONLY_FOR_CGROUPS = frozenset({"cap_bpf", "bpf_syscall", "cgroup2", "bcc", "libbpf.so.1"})


def choose_selection(wanted: SelectionMode, checks: Sequence[SystemCheck]) -> SelectionMode:
    """CGROUP or NAMESPACE: ``auto`` is CGROUP where the cgroup tree is visible."""
    if wanted is not SelectionMode.AUTO:
        return wanted
    return SelectionMode.CGROUP if has(checks, "cgroup_tree") else SelectionMode.NAMESPACE


def checks_for(selection: SelectionMode, checks: Sequence[SystemCheck]) -> list[SystemCheck]:
    """The checks: what only programs on cgroups need is not required by NAMESPACE."""
    if selection is SelectionMode.CGROUP:
        return list(checks)
    return [
        replace(check, required=check.required and check.name not in ONLY_FOR_CGROUPS) for check in checks
    ]


def check_policies(config: Config, file: str, selection: SelectionMode, *, initial: bool) -> None:
    """Raises ConfigError for policies that can have no effect where the service runs.

    ``initial``: in the network namespace that the machine booted with.
    """
    problems = _check_automatic(config, file, selection, initial=initial)
    if selection is SelectionMode.NAMESPACE:
        problems += _check_without_cgroups(config, file)
    if problems:
        raise ConfigError(problems)


def _check_automatic(config: Config, file: str, selection: SelectionMode, *, initial: bool) -> list[Problem]:
    remedy = ""
    if selection is SelectionMode.NAMESPACE:
        remedy = f"needs the cgroup tree: write `/` for the whole network namespace, or {SEE_CGROUPS}"
    elif initial:
        remedy = (
            "would be every cgroup of the machine: write `/`, or use it in a network namespace of its own"
        )
    return [
        Problem(file, 0, f"policies.{policy.name}.cgroup", f"`{AUTO}` {remedy}")
        for policy in config.policies
        if policy.cgroup == AUTO and remedy
    ]


def _check_without_cgroups(config: Config, file: str) -> list[Problem]:
    problems = [
        Problem(
            file,
            0,
            f"policies.{policy.name}.options",
            f"need `selection: cgroup`, the cgroup tree and CAP_BPF: {SEE_CGROUPS}",
        )
        for policy in config.policies
        if has_options(policy.options)
    ]
    if config.policies and PolicyTable(config.policies).direct("/") is None:
        problems.append(
            Problem(
                file,
                0,
                "policies",
                "no session would have a policy, since no cgroup can be told from another here "
                f"(`selection: namespace`): write one policy with `cgroup: /`, or {SEE_CGROUPS}",
            )
        )
    return problems
