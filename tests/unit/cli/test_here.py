# SPDX-License-Identifier: Apache-2.0
"""``check --here`` and ``--strict``: what a valid configuration does not do on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pm.cli import here
from pm.cli.main import main
from pm.linux.host.system_check import SystemCheck

CONFIG = """
datapath: bpf
api:
  unix: /run/x.sock
  tcp: {listen: 127.0.0.1:1, token_file: /nowhere/token}
addresses:
  include: [eth0, wlan7, lo]
policies:
- {name: there, cgroup: /a, path_manager: fullmesh}
- {name: gone, cgroup: /b/*, path_manager: fullmesh}
records: {to: file, path: /nowhere/records}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """On a machine with eth0, lo, the cgroup /a, and a stock kernel."""
    (tmp_path / "cgroup/a").mkdir(parents=True)
    tree = SystemCheck("cgroup_tree", True, False, "other cgroups are visible", "")
    patched = SystemCheck("bpf_datapath", False, False, "a stock kernel", "boot the patched one")
    monkeypatch.setattr(here, "interface_names", lambda: ["eth0", "lo"])
    monkeypatch.setattr(here, "find_cgroup_root", lambda: tmp_path / "cgroup")
    monkeypatch.setattr(here, "probe", lambda precompiled: [tree, patched])
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG)
    return str(file)


def test_here_finds_what_does_nothing(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its line, and what to do; the configuration is valid all the same."""
    assert main(["check", "--here", config]) == 0
    out, err = capsys.readouterr()
    assert out == f"{config}: valid, 2 policies, 5 warnings\n"
    assert err.splitlines() == [
        f"{config}:2: datapath: warning: `bpf` is not possible here: a stock kernel: boot the patched one",
        f"{config}:5: api.tcp.token_file: warning: cannot read the token file /nowhere/token: No such file "
        "or directory: correct `api.tcp.token_file`",
        f"{config}:7: addresses.include[1]: warning: `wlan7` matches no interface of now",
        f"{config}:10: policies[1].cgroup: warning: `/b/*` matches no cgroup of now: `systemd-cgls` shows "
        "those there are; one that comes later matches then",
        f"{config}:11: records.path: warning: no file can be made in /nowhere: create the directory",
    ]


NAMESPACE = """
selection: namespace
api:
  unix: /proc/x/api.sock
  probes: {listen: 203.0.113.77:9464}
policies:
- {name: a, cgroup: /a, path_manager: none}
"""


def test_here_finds_what_run_would_refuse(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Policies without sessions, and an API that cannot be where it is to be."""
    Path(config).write_text(NAMESPACE)
    main(["check", "--here", config])
    lines = [line.partition(": warning: ") for line in capsys.readouterr().err.splitlines()]
    found = {place.removeprefix(f"{config}:"): text for place, _, text in lines}
    assert found["4: api.unix"] == "/proc/x/api.sock cannot be created in /proc: choose another path"
    assert found["5: api.probes.listen"] == "no interface has the address of `203.0.113.77:9464` now"
    assert found["6: policies"].startswith("`run` refuses this here: no session would have a policy")


def test_an_alternative_name_is_told(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel finds an interface by it, and reports the other name."""
    monkeypatch.setattr("socket.if_nametoindex", lambda name: 3)
    monkeypatch.setattr("socket.if_indextoname", lambda index: "wlp3s0")
    main(["check", "--here", config])
    assert "`wlan7` is an alternative name: write `wlp3s0`" in capsys.readouterr().err


def test_a_token_file_that_others_can_read(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a warning as others are: counted, and no log line in the JSON."""
    token = tmp_path / "a token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o640)
    Path(config).write_text(f"api: {{tcp: {{listen: '127.0.0.1:1', token_file: {token}}}}}\npolicies: []\n")
    assert main(["check", "--here", "--strict", "--json", config]) == 1
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert (warning["line"], warning["path"]) == (1, "api.tcp.token_file")
    assert warning["message"] == f"{token} can be read by others: `chmod 600 '{token}'`"


def test_strict_makes_warnings_errors(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also as JSON; without warnings nothing changes."""
    assert main(["check", "--strict", config]) == 0
    assert main(["check", "--strict", "--here", config]) == 1
    out, err = capsys.readouterr()
    assert (out.count("valid"), err.count(": error: ")) == (1, 5)
    assert main(["check", "--strict", "--here", "--json", config]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["problems"], len(answer["warnings"])) == (False, [], 5)
    assert {"file", "line", "path", "message"} == answer["warnings"][0].keys()
