# SPDX-License-Identifier: Apache-2.0
"""What is taken out of a report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pm.cli.secrets import REMOVED, Secrets


def test_values_below_a_secret_key() -> None:
    """At any depth and of any type; paths, flags and what stands elsewhere are left."""
    known = {"token_file", "api", "keepalive", "idle", "accept", "from", "secret", "file", "text"}
    data = {
        "token_file": "/etc/token",
        "api": {"Password": "hunter22", "tokens": [{"file": "/usr/x", "text": "abcdefgh"}, 123456789]},
        "keepalive": {"idle": "60s"},
        "accept": {"from": ["10.0.0.0/8"]},
        "secret": True,
    }
    secrets = Secrets()
    assert secrets.without(data, known) == {
        "token_file": "/etc/token",
        "api": {"Password": REMOVED, "tokens": [{"file": "/usr/x", "text": REMOVED}, REMOVED]},
        "keepalive": {"idle": "60s"},
        "accept": {"from": ["10.0.0.0/8"]},
        "secret": True,
    }
    assert (
        secrets.scrub("not the text 'hunter22', nor 123456789") == f"not the text '{REMOVED}', nor {REMOVED}"
    )


SECRET = "/AbX91+zz+secret"


@pytest.mark.parametrize(
    "data",
    [
        SECRET,
        [SECRET],
        {"api": SECRET},
        {"api": {"tcp": SECRET}},
        {"api": {"tcp": {"token": SECRET}}},
        {"api": {"tcp": {SECRET: None}}},
        {"api": {SECRET: {"listen": SECRET}}},
        {"policies": [{SECRET: 1}]},
        {"Authorization": SECRET},
        {"x": {"bearer": [SECRET]}},
        {"unknown": SECRET},
    ],
)
def test_secrets_in_wrong_places(data: Any) -> None:
    """Also one that looks like a path, and one that is a key."""
    secrets = Secrets()
    assert SECRET not in json.dumps(secrets.without(data, {"api", "tcp", "listen", "policies"}))
    assert secrets.scrub(f"no {SECRET}") == f"no {REMOVED}"


def test_what_is_harmless_stays() -> None:
    """The settings of the API, and the names of unknown keys."""
    api = {"unix": "/run/x.sock", "tcp": {"listen": "[::1]:80", "token_file": "/etc/token"}}
    known = {"api", "unix", "tcp", "listen", "token_file"}
    assert Secrets().without({"api": api, "datapth": "x"}, known) == {"api": api, "datapth": REMOVED}


def test_lines_of_a_file_of_credentials(tmp_path: Path) -> None:
    """All of them, and no word that is too short to be one."""
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\nthe\n")
    secrets = Secrets()
    secrets.learn_file(str(file))
    secrets.learn_file("/nonexistent")
    os.mkfifo(tmp_path / "fifo")
    secrets.learn_file(str(tmp_path / "fifo"))
    assert secrets.scrub("the token 0123456789abcdef") == f"the token {REMOVED}"


@pytest.mark.parametrize("end", ["-----END RSA PRIVATE KEY-----", ""])
def test_pem_is_taken_out_wherever_it_stands(end: str) -> None:
    """Also one that is cut off."""
    text = f"a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n{end}"
    assert Secrets().scrub(text) == f"a\n{REMOVED}"
