# SPDX-License-Identifier: Apache-2.0
"""What is taken out of a report."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pm.cli.secrets import REMOVED, Secrets


def test_values_below_a_secret_key() -> None:
    """At any depth and of any type; paths, flags and what stands elsewhere are left."""
    data = {
        "token_file": "/etc/token",
        "api": {"Password": "hunter22", "tokens": [{"file": "/x", "text": "abcdefgh"}, 123456789]},
        "keepalive": {"idle": "60s"},
        "accept": {"from": ["10.0.0.0/8"]},
        "secret": True,
    }
    secrets = Secrets()
    assert secrets.without(data) == {
        "token_file": "/etc/token",
        "api": {"Password": REMOVED, "tokens": [{"file": "/x", "text": REMOVED}, REMOVED]},
        "keepalive": {"idle": "60s"},
        "accept": {"from": ["10.0.0.0/8"]},
        "secret": True,
    }
    assert (
        secrets.scrub("not the text 'hunter22', nor 123456789") == f"not the text '{REMOVED}', nor {REMOVED}"
    )


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
