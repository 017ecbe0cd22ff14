# SPDX-License-Identifier: GPL-2.0-only
"""A path manager from another package, found through its entry point: the documented example."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.commands import run
from tests.lab.lab import Lab
from tests.lab.scenarios import ALL_ADDRESSES, config, policy, wait_pairs
from tests.lab.service import ROOT, ApiError


def test_documented_example(make_lab: Callable[..., Lab], tmp_path: Path) -> None:
    """Installed with pip, named in YAML with its parameter, it opens its subflows."""
    project = ROOT / "docs/examples/per_interface"
    source = tmp_path / "source"
    source.mkdir()
    for file in project.glob("*.*"):
        (source / file.name).write_bytes(file.read_bytes())
    target = tmp_path / "installed"
    # Offline: with the setuptools that is there.
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation")
    run(*pip, "--target", str(target), str(source))
    lab = make_lab(client=3, server=1)
    lab.add_address("client", 2, "10.77.2.77")
    lab.server()
    lab.service(
        config(policy(lab, "a", {"per_interface": {"max_interfaces": 2}}), **ALL_ADDRESSES),
        env={"PYTHONPATH": str(target)},
    )
    lab.client(cgroup="a").open()
    remote = lab.address("server", 1)
    wait_pairs(lab, [(lab.address("client", 1), remote), (lab.address("client", 2), remote)])


def test_program_needs_the_bpf_datapath(lab: Lab) -> None:
    """A path manager in BPF C is refused where programs decide nothing; what was in force stays."""
    service = lab.service(config(policy(lab, "a"), datapath="netlink"))
    program = {"program": {"name": "second_interface", "source": "/nowhere.c"}}
    service.configure(config(policy(lab, "a", program), datapath="netlink"))
    with pytest.raises(ApiError) as refused:
        service.reload()
    (problem,) = refused.value.problem["problems"]
    assert refused.value.status == 422
    assert "needs the bpf datapath: boot the patched kernel" in problem["message"]
    assert service.get("/v1/policies")["policies"][0]["path_manager"]["name"] == "fullmesh"
