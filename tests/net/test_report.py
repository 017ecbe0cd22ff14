# SPDX-License-Identifier: Apache-2.0
"""``report`` of a real service and of none: what is in the archive, and that no secret is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.lab import Lab
from tests.lab.scenarios import config, mesh, policy, wait_pairs
from tests.lab.service import Service

MPTCP_PM = (sys.executable, "-m", "pm.cli.main")
TOKEN = "f00dfeedf00dfeedf00dfeed"
COMMENT = "the-password-of-somebody"


def make_report(lab: Lab, file: Path, *options: str) -> dict[str, str]:
    """The members of the archive by name."""
    lab.run("client", *MPTCP_PM, *options, "report", "--output", str(file))
    return members_of(file)


def members_of(file: Path) -> dict[str, str]:
    found = {}
    with tarfile.open(file) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            assert member.name.startswith("mptcp-pm-report/")
            found[member.name.removeprefix("mptcp-pm-report/")] = content.read().decode()
    return found


def fail(lab: Lab, *arguments: str) -> str:
    """The one line of standard error of a command that ends with status 1."""
    process = lab.popen([*MPTCP_PM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (1, "", 1), err
    return str(err)


def service_with_secrets(lab: Lab) -> Service:
    """Its REST API has a token, and the configuration a comment that nobody else should read."""
    token_file = lab.directory / "token"
    token_file.write_text(f"{TOKEN}\n")
    token_file.chmod(0o600)
    service = lab.service(config(policy(lab, "a")), start=False)
    document = yaml.safe_load(service.config_path.read_text())
    document["api"] |= {"tcp": {"listen": "127.0.0.1:8642", "token_file": str(token_file)}}
    service.configure(f"# {COMMENT}\n{yaml.safe_dump(document)}")
    return service.start()


def test_a_report_of_a_running_service(lab: Lab, tmp_path: Path) -> None:
    """All that a bug report needs, in a file that only its owner can read; the token is nowhere in it."""
    lab.server()
    service = service_with_secrets(lab)
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))
    file = tmp_path / "report.tar.gz"
    old = os.umask(0)
    try:
        found = make_report(lab, file, "--socket", str(service.socket_path))
    finally:
        os.umask(old)
    assert file.stat().st_mode & 0o777 == 0o600
    (session,) = service.sessions()
    assert set(found) >= {
        "README.txt", "versions.txt", "doctor.json", "configuration.json", "status.json", "policies.json",
        "addresses.json", "sessions.json", f"sessions/{session['token']}.json", "metrics.txt", "sysctls.txt",
        "counters.txt", "rules.txt", "routes.txt", "links.txt",
    }  # fmt: skip
    for name, text in found.items():
        assert TOKEN not in text, name
        assert COMMENT not in text, name
    assert json.loads(found["configuration.json"])["configuration"]["policies"][0]["name"] == "a"
    events = json.loads(found[f"sessions/{session['token']}.json"])["events"]
    assert "established" in {event["event"] for event in events}
    assert json.loads(found[f"sessions/{session['token']}-why.json"])["pairs"] == []
    assert "mptcp_pm_sessions" in found["metrics.txt"]
    assert "net.mptcp.enabled = 1" in found["sysctls.txt"]
    assert "fastopen_key" not in found["sysctls.txt"]
    assert "stable_secret" not in found["sysctls.txt"]
    assert f"from {lab.address('client', 2)}" in found["rules.txt"]
    assert "  sessions.json" in found["README.txt"].splitlines()


def test_what_looks_like_a_secret_is_taken_out(lab: Lab, tmp_path: Path) -> None:
    """Of a file that is not valid, whose problems quote it. Paths stay, what is in the files does not."""
    key = tmp_path / "tls.key"
    key.write_text("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\n-----END PRIVATE KEY-----\n")
    document: dict[str, Any] = {
        "api": {
            "tcp": {
                "listen": "127.0.0.1:1",
                "token_file": TOKEN,
                "tls": {"cert": "/etc/x.pem", "key": str(key)},
            }
        },
        "policies": [{"name": "MIIEvQIBADANBgkqhkiG9w0BAQEF", "cgroup": "/a", "path_manager": "none"}],
    }
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(document))
    assert TOKEN in fail(lab, "check", str(file))
    found = make_report(lab, tmp_path / "r.tar.gz", "--socket", "/nonexistent")
    assert "configuration.json" not in found
    lab.run("client", *MPTCP_PM, "report", "--config", str(file), "--output", str(tmp_path / "s.tar.gz"))
    found = members_of(tmp_path / "s.tar.gz")
    for name, text in found.items():
        assert TOKEN not in text, name
        assert "MIIEvQIBADANBgkqhkiG9w0BAQEF" not in text, name
    shown = json.loads(found["configuration.json"])
    assert shown["configuration"]["api"]["tcp"]["token_file"] == "[removed]"
    assert shown["configuration"]["api"]["tcp"]["tls"] == {"cert": "/etc/x.pem", "key": str(key)}
    assert "[removed]" in shown["problems"][0]["message"]


def test_without_a_service_it_says_what_is_missing(lab: Lab, tmp_path: Path) -> None:
    """The network and the system are there all the same."""
    found = make_report(lab, tmp_path / "report.tar.gz", "--socket", str(tmp_path / "nobody"))
    assert {"doctor.json", "routes.txt", "sysctls.txt"} <= set(found)
    assert "status.json" not in found
    left_out = found["README.txt"].partition("Left out:")[2]
    assert "status.json: the service is not running" in left_out
    assert "sessions" in left_out


def test_a_report_has_a_bound(lab: Lab, tmp_path: Path) -> None:
    """A router with a full table: the part is cut off, and the report says so."""
    lines = (f"route add 11.{i >> 8 & 255}.{i & 255}.{i >> 16}/32 dev eth0 table 77" for i in range(40_000))
    batch = tmp_path / "batch"
    batch.write_text("\n".join(lines) + "\n")
    lab.ip("client", "-batch", str(batch))
    found = make_report(lab, tmp_path / "report.tar.gz", "--socket", "/nonexistent")
    assert found["routes.txt"].endswith("[cut off after 1048576 bytes]\n")
    assert len(found["routes.txt"]) < 1.1 * (1 << 20)
    assert "routes.txt: what is beyond 1048576" in found["README.txt"]


def test_nothing_is_overwritten(lab: Lab, tmp_path: Path) -> None:
    """Neither a file nor what a link leads to; what cannot be written is one line."""
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_text("mine")
    link.symlink_to(tmp_path / "elsewhere")
    for file in (there, link):
        assert "exists already: name another file" in fail(lab, "report", "--output", str(file))
    assert there.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    assert "cannot write /nonexistent/x: No such" in fail(lab, "report", "--output", "/nonexistent/x")
    assert (
        "cannot write /dev/full" in fail(lab, "report", "--output", "/dev/full") or Path("/dev/full").exists()
    )


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_printed(lab: Lab, tmp_path: Path, as_json: bool) -> None:
    """The file, its parts and what was left out; with ``-`` the archive itself goes to standard output."""
    file = tmp_path / "report.tar.gz"
    options = ("report", "--output", str(file), *["--json"] * as_json)
    out = lab.run("client", *MPTCP_PM, *options)
    if as_json:
        document = json.loads(out)
        assert document["file"] == str(file)
        assert "routes.txt" in document["parts"]
        assert "status.json" in document["left_out"]
        return
    assert "  routes.txt\n" in out
    assert "bearer tokens, private keys" in out
    process = lab.popen(
        [*MPTCP_PM, "report", "--output", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    archive, _ = process.communicate(timeout=30)
    piped = tmp_path / "piped.tar.gz"
    piped.write_bytes(archive)
    assert "routes.txt" in members_of(piped)
