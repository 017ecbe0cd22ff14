# SPDX-License-Identifier: Apache-2.0
"""A third party's path manager in BPF C, named in YAML: the documented example."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import config, policy, wait_pairs
from tests.lab.service import ROOT, ApiError

EXAMPLE = ROOT / "docs/examples/second_interface/second_interface.c"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(client=3, server=1) as lab:
        lab.server()
        yield lab


def program(source: Path, **parameters: int) -> dict[str, Any]:
    return {"program": {"name": "second_interface", "source": str(source), "parameters": parameters}}


def pairs(lab: Lab, number: int) -> list[tuple[str, str]]:
    return [(local, lab.address("server", 1)) for local in lab.addresses("client")[:number]]


def test_documented_example(lab: Lab) -> None:
    """It opens its subflows in the kernel; a parameter that a reload changes counts for new sessions."""
    service = lab.service(config(policy(lab, "a", program(EXAMPLE, subflows=1)), datapath="bpf"))
    client = lab.client(cgroup="a")
    client.open()
    wait_pairs(lab, pairs(lab, 2))
    (session,) = service.sessions()
    assert session["program"] == "second_interface"
    service.configure(config(policy(lab, "a", program(EXAMPLE, subflows=2)), datapath="bpf"))
    service.reload()
    client.close()
    client.open()
    wait_pairs(lab, pairs(lab, 3))
    assert service.get("/v1/status")["counters"].get("open", 0) == 0


def test_bad_files_change_nothing(lab: Lab, tmp_path: Path) -> None:
    """A file is not C, is refused by the verifier, or is missing; a parameter is unknown: all is refused."""
    service = lab.service(config(policy(lab, "a"), datapath="bpf"))
    source = tmp_path / "second_interface.c"
    unbounded = EXAMPLE.read_text().replace("~claim->near;", "claim->remotes[p->value[0]].address.id;")
    for text, parameters, complaint in (
        (None, {}, "No such file"),
        ("no C", {}, "has no function `second_interface_manage`: define it"),
        (EXAMPLE.read_text() + "no C", {}, "second_interface.c does not compile: line [0-9]+: unknown type"),
        (unbounded, {}, "verifier refused"),
        (EXAMPLE.read_text(), {"sublows": 3}, "has no parameter `sublows`: it has subflows"),
    ):
        if text is not None:
            source.write_text(text)
        service.configure(config(policy(lab, "a", program(source, **parameters)), datapath="bpf"))
        with pytest.raises(ApiError, match=complaint) as refused:
            service.reload()
        assert refused.value.status == 422
    lab.client(cgroup="a").open()
    wait_pairs(lab, pairs(lab, 3))
    (session,) = service.sessions()
    assert session["program"] == "fullmesh"
