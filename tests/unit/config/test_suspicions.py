# SPDX-License-Identifier: Apache-2.0
"""What is valid and most likely a mistake is named with its line, and what is meant is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pm.config.load import load_config
from pm.errors import ConfigError


def warnings(tmp_path: Path, *policies: dict[str, Any], **top: Any) -> list[str]:
    file = tmp_path / "c.yaml"
    named = [{"name": f"p{i}", "path_manager": "fullmesh", **p} for i, p in enumerate(policies)]
    file.write_text(yaml.safe_dump({**top, "policies": named}))
    return [f"{w.path}: {w.message}" for w in load_config(str(file)).warnings]


@pytest.mark.parametrize(
    ("glob", "words"),
    [
        ("/sys/fs/cgroup/system.slice/nginx.service", "write `/system.slice/nginx.service` without"),
        ("/sys/fs/cgroup/unified/a", "write `/a` without `/sys/fs/cgroup/unified`"),
        ("/sys/fs/cgroup", "write `/` without"),
        ("/system.slice/{nginx,ssh}.service", "braces are no wildcards here: write one policy for each"),
        ("/system.slice/nginx.*", "looks like a regular expression"),
        ("/^system.slice/a", "looks like a regular expression"),
        ("/system.slice/(a|b)", "looks like a regular expression"),
        ("/system.slice/app@%i.service", "`%i` is systemd's and is not replaced here: write `*`"),
        ("/system.slice/a ", "has a blank at the start or end"),
        ("/system.slice/a\u00a0", "has a blank at the start or end"),
        ("/nginx.service", "see `systemctl show -p ControlGroup nginx.service`"),
    ],
)
def test_a_cgroup_that_matches_nothing(tmp_path: Path, glob: str, words: str) -> None:
    """Each way that people write one."""
    (warning,) = warnings(tmp_path, {"cgroup": glob})
    assert warning.startswith("policies[0].cgroup: ")
    assert words in warning


@pytest.mark.parametrize(
    "glob",
    [
        "/", "/system.slice/*.service", "/user.slice/**/app-firefox-[0-9]*.scope", "/a.b/c d/e",
        "/system.slice/dev-disk-by\\x2dlabel.swap", "/kubepods.slice/**/cri-containerd-*.scope", "/a/50%",
    ],
)  # fmt: skip
def test_ordinary_globs_are_not_suspected(tmp_path: Path, glob: str) -> None:
    """A warning that is wrong teaches to ignore warnings."""
    assert warnings(tmp_path, {"cgroup": glob}) == []


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("ControlGroup=/system.slice/a.service", "write `/system.slice/a.service`"),
        ("0::/user.slice/b", "write `/user.slice/b`"),
        ("nginx.service", "see `systemctl show -p ControlGroup nginx.service`"),
        ("system.slice/a", "write `/system.slice/a`"),
    ],
)
def test_what_was_pasted_gets_the_right_remedy(tmp_path: Path, text: str, remedy: str) -> None:
    """Errors, since such text names no cgroup at all."""
    with pytest.raises(ConfigError, match="must start with") as error:
        warnings(tmp_path, {"cgroup": text})
    assert str(error.value).endswith(remedy)


@pytest.mark.parametrize(
    ("addresses", "place", "words"),
    [
        ({"include": ["10.0.0.1"]}, "include[0]", "is an address: write the name of its interface"),
        ({"include": ["eth0", "eth1@if3"]}, "include[1]", "write `eth1`"),
        ({"exclude": ["eth0:1"]}, "exclude[0]", "is the label of an address: write the interface, `eth0`"),
        ({"include": ["eth{0,1}"]}, "include[0]", "braces are no wildcards here"),
        ({"include": ["wlp.*"]}, "include[0]", "looks like a regular expression"),
        ({"exclude": ["*"]}, "exclude", "no interface is left"),
        ({"include": ["eth0"], "exclude": ["eth*"]}, "exclude", "no interface is left"),
        ({"include": []}, "include", "no interface is left"),
        ({"include": ["eth*"], "backup": ["wwan*"]}, "backup[0]", "`wwan*` is not in `include`"),
        ({"include": ["eth*"], "order": ["wwan0"]}, "order[0]", "`wwan0` is not in `include`"),
        ({"exclude": ["wwan*"], "backup": ["wwan0"]}, "backup[0]", "`wwan0` is in `exclude`"),
    ],
)
def test_interfaces(tmp_path: Path, addresses: dict[str, Any], place: str, words: str) -> None:
    """What is no name of an interface, and lists that contradict one another."""
    (warning,) = warnings(tmp_path, addresses=addresses)
    assert warning.startswith(f"addresses.{place}: ")
    assert words in warning


def test_lists_of_interfaces_that_fit(tmp_path: Path) -> None:
    """A backup among those included, also where globs overlap in part."""
    for addresses in (
        {"include": ["eth*", "wwan0"], "exclude": ["eth7", "docker*"], "backup": ["wwan*"]},
        {"include": ["*"], "exclude": ["veth*"], "backup": ["wlan?", "ww[a-z]n*"]},
    ):
        assert warnings(tmp_path, addresses=addresses) == []


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"path_manager": "none", "start": {"after": "1s"}}, "start: has no effect"),
        ({"path_manager": {"fullmesh": {"max_subflows": 1}}}, "max_subflows: 1 counts the initial subflow"),
        ({"path_manager": {"ndiffports": {"subflows": 1}}}, "subflows: 1 counts the initial subflow"),
        ({"accept": {"from": []}}, "accept.from: is empty: every join of a peer is refused"),
        ({"announce": True, "accept": {"max_subflows": 1}}, "max_subflows: 1 refuses every join"),
    ],
)
def test_what_has_no_effect(tmp_path: Path, policy: dict[str, Any], words: str) -> None:
    """Keys that others make void."""
    (warning,) = warnings(tmp_path, {"cgroup": "/a", **policy})
    assert words in warning


def test_policies_that_shadow_one_another(tmp_path: Path) -> None:
    """One that never applies, and one whose cgroups below belong to another."""
    (never,) = warnings(tmp_path, {"cgroup": "/a/[!x]*"}, {"cgroup": "/a/?*"}, {"cgroup": "/b"})
    assert never == "policies[1].cgroup: never applies: `/a/[!x]*` of policy `p0` is more specific"
    (below,) = warnings(tmp_path, {"cgroup": "/system.slice"}, {"cgroup": "/**"})
    assert "cgroups below it belong to policy `p1`" in below
    assert warnings(tmp_path, {"cgroup": "/"}, {"cgroup": "/system.slice/*"}, {"cgroup": "/a/**"}) == []
