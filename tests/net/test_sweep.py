# SPDX-License-Identifier: Apache-2.0
"""What killed services leave on the bpffs, and who removes it when."""

from __future__ import annotations

from pathlib import Path

from pm.linux.bpf import sweep
from tests.lab.lab import Lab
from tests.lab.service import command
from tests.lab.waiting import wait_equal


def directories(lab: Lab) -> set[str]:
    return {path.parent.name for path in lab.pins()}


def of_namespace(lab: Lab, before: set[str]) -> Path:
    """The directory that came since ``before``."""
    (name,) = directories(lab) - before
    return next(path.parent for path in lab.pins() if path.parent.name == name)


def test_pins_of_dead_services(lab: Lab) -> None:
    """Those in a namespace that has ended go at the next start; those in a living one go on working.

    On request the latter go too, unless they are to stay.
    """
    policies = [{"name": "all", "cgroup": lab.cgroup("a"), "path_manager": "none"}]
    ending = lab.service({"policies": policies}, program=["unshare", "--net", *command()])
    ended = of_namespace(lab, set())
    dead = lab.service({"policies": policies}, ns="server")
    living = of_namespace(lab, {ended.name})
    keeping = lab.service({"policies": policies, "on_exit": "keep"})
    kept = of_namespace(lab, {ended.name, living.name})
    assert not sweep.remove_left(living)
    assert not sweep.sweep(living.parent)
    for service in (ending, dead, keeping):
        service.kill()
    # The kernel takes a namespace down a moment after its last process.
    wait_equal(lambda: sweep._has_ended(ended), True)
    assert not sweep._has_ended(living)
    assert directories(lab) == {ended.name, living.name, kept.name}

    service = lab.service({"policies": policies})
    assert directories(lab) == {living.name, kept.name}
    assert "pins_swept" in {line["event"] for line in service.log_lines()}
    service.terminate()
    assert directories(lab) == {living.name}
    assert sweep.remove_left(living)

    keeping.start()
    keeping.terminate()
    assert not sweep.remove_left(kept)
    assert directories(lab) == {kept.name}
    service = lab.service({"policies": policies})
    service.terminate()
    assert lab.pins() == []
