# SPDX-License-Identifier: GPL-2.0-only
"""The service under exactly the capabilities of its systemd unit."""

from __future__ import annotations

import re

from tests.lab.lab import Lab
from tests.lab.scenarios import mesh, wait_pairs
from tests.lab.service import DATAPATH, ROOT, command
from tests.lab.tcp_options import SEND, with_options


def unit_capabilities(*more: str) -> list[str]:
    """A command that runs others with the capabilities that the unit leaves, and ``more``."""
    unit = (ROOT / "config/mptcp-pm.service").read_text()
    (listed,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    kept = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in (*listed.split(), *more))
    return [
        "setpriv",
        f"--bounding-set=-all{kept}",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--no-new-privs",
    ]


def test_the_units_capabilities_suffice(lab: Lab) -> None:
    """Classifier, all TCP options, path manager; on the patched kernel with CAP_PERFMON, as the unit says."""
    more = ["CAP_PERFMON"] if DATAPATH == "bpf" else []
    lab.server()
    document = with_options(lab, {"a": SEND})
    document["policies"][0]["path_manager"] = "fullmesh"
    service = lab.service(document, program=[*unit_capabilities(*more), *command()])
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))
    (check,) = [c for c in service.get("/v1/status")["kernel"]["checks"] if c["name"] == "cap_perfmon"]
    assert (check["ok"], check["required"]) == (bool(more), False)
