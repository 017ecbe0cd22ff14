# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pm.cli.top.typed_keys import Key, decode, is_unfinished


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1bOB", [Key.UP, Key.DOWN]),
        (b"\x1b[5~\x1b[6~", [Key.PAGE_UP, Key.PAGE_DOWN]),
        (b"\x1b[1;5C", [Key.RIGHT]),
        (b"\x1b", [Key.ESCAPE]),
        (b"\x1bq", [Key.ESCAPE, "q"]),
        (b"\r\t\x7f", [Key.ENTER, Key.TAB, Key.BACKSPACE]),
        ("é/".encode(), ["é", "/"]),
        (b"\x1b[200~x\x1b[99~", ["x"]),
        (b"\x00\x01\xff", []),
    ],
)
def test_bytes_are_keys(data: bytes, keys: list[str]) -> None:
    assert decode(data) == keys


@pytest.mark.parametrize("data", [b"\x1b", b"a\x1b[", b"\x1b[1;", b"\xc3", b"\x1bO"])
def test_the_rest_of_a_key_may_come(data: bytes) -> None:
    assert is_unfinished(data)


@pytest.mark.parametrize("data", [b"", b"a", b"\x1b[A", "é".encode(), b"\x1b[5~"])
def test_whole_keys(data: bytes) -> None:
    assert not is_unfinished(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_some_keys(data: bytes) -> None:
    """What a terminal sends never ends the command."""
    assert all(key in list(Key) or key.isprintable() for key in decode(data))
