# SPDX-License-Identifier: Apache-2.0
"""Names of any bytes as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pm.names import printable, read_name, show_name, valid_text


@given(st.binary())
def test_every_name_comes_back(name: bytes) -> None:
    """What is shown can be encoded, and leads back to the name."""
    text = show_name(name)
    text.encode()
    assert read_name(text) == name


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd")))
def test_utf8_is_shown_unchanged(text: str) -> None:
    assert show_name(text.encode()) == text == valid_text(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"bad\xff", "bad\ufffdff"),
        ("\ufffd".encode(), "\ufffdef\ufffdbf\ufffdbd"),
        (b"a\\x2db", "a\\x2db"),
    ],
)
def test_notation(name: bytes, text: str) -> None:
    assert show_name(name) == text


def test_surrogates() -> None:
    """Half of a pair is no byte of a name, and is shown all the same."""
    assert valid_text("a\udcff\ud800") == "a\ufffdff\ufffded\ufffda0\ufffd80"


def test_no_commands_to_a_terminal() -> None:
    assert printable("a\x1b[2J\u009b\n") == "a\\x1b[2J\\x9b\\n"
    assert printable("a\u202eb\u200bc") == "a\\u202eb\\u200bc"
