# SPDX-License-Identifier: Apache-2.0
"""A service without BCC, as in the slim image: it runs on programs that were compiled beforehand."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pm.linux.bpf.precompiled import DIRECTORY_VARIABLE
from tests.lab.lab import Lab
from tests.lab.precompiled import without_bcc
from tests.lab.scenarios import config, mesh, policy, wait_pairs
from tests.lab.service import ROOT, ApiError


def test_everything_but_third_parties(lab: Lab, tmp_path: Path) -> None:
    """Classifiers, options and path managers load; `source:` is an error, and what was in force stays."""
    options = {"user_timeout": {"advertise": "30s"}}
    lab.server()
    service = lab.service(config({**policy(lab, "a"), "options": options}), env=without_bcc(tmp_path))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))
    (session,) = service.sessions()
    assert session["policy"] == "a"
    if service.datapath() == "bpf":
        assert session["program"] == "fullmesh"
    (found,) = [check for check in service.get("/v1/status")["kernel"]["checks"] if check["name"] == "bcc"]
    assert (found["ok"], "precompiled" in found["found"]) == (True, True)
    plugin = {
        "name": "level",
        "source": str(ROOT / "docs/examples/level/level.c"),
        "exid": 0x4D4C,
        "send": True,
    }
    service.configure(config({**policy(lab, "a"), "options": {**options, "plugins": [plugin]}}))
    with pytest.raises(ApiError, match=r"needs a compiler.*(apt install python3-bpfcc|image `full`)"):
        service.reload()
    in_force = service.get("/v1/policies")["policies"][0]["options"]
    assert in_force["user_timeout"]
    assert not in_force.get("plugins")


def test_of_another_version(lab: Lab, tmp_path: Path) -> None:
    """A start that cannot succeed ends with one line: which file is of another version, and what to do."""
    objects = tmp_path / "objects"
    shutil.copytree(os.environ[DIRECTORY_VARIABLE], objects)
    path = objects / "classify.json"
    path.write_text(path.read_text().replace('"digest": "', '"digest": "0'))
    service = lab.service(
        config(policy(lab, "a")), start=False, env={**without_bcc(tmp_path), DIRECTORY_VARIABLE: str(objects)}
    )
    with pytest.raises(AssertionError, match="mptcp-pm ended with 3"):
        service.start()
    (line,) = service.log().splitlines()
    assert f"{path} is of another version of mptcp-pm: " in line
