# SPDX-License-Identifier: Apache-2.0
"""Durations, sizes and listening addresses as text."""

from __future__ import annotations

import re
import subprocess
import sys
from ipaddress import ip_address
from typing import Annotated, get_args

import pytest
from annotated_types import Ge
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pm.notation import (
    Duration,
    Size,
    format_duration,
    format_size,
    parse_duration,
    parse_end,
    parse_listen,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("10min", 600), ("2h", 7200), ("0s", 0), ("1.5s", 1.5), ("3 min", 180)],
)
def test_durations_parse_to_seconds(text: str, seconds: float) -> None:
    """A number and one of ms, s, min, h."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512B", 512),
        ("64KiB", 65536),
        ("1MiB", 1 << 20),
        ("10MB", 10**7),
        ("1.5KiB", 1536),
        ("1kB", 1000),
        ("0B", 0),
    ],
)
def test_sizes_parse_to_bytes(text: str, size: int) -> None:
    """A number and a binary or decimal unit."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (30, "30 needs a unit: write `30s` (units: ms, s, min, h)"),
        ("1.5", "1.5 needs a unit: write `1.5s` (units: ms, s, min, h)"),
        ("5 days", "unknown unit in '5 days': units are ms, s, min, h"),
        ("5S", "unknown unit in '5S': did you mean `5s`?"),
        ("-5s", "'-5s' is not a duration: write a number and a unit, `30s` (units: ms, s, min, h)"),
        ("٣s", "'٣s' is not a duration: write a number and a unit, `30s` (units: ms, s, min, h)"),
        (True, "must be a duration, such as `30s` (units: ms, s, min, h)"),
        (None, "must be a duration, such as `30s` (units: ms, s, min, h)"),
    ],
)
def test_a_bad_duration_says_what_to_write(value: object, message: str) -> None:
    """A bare number, an unknown unit and anything else are refused with the remedy."""
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (65536, "65536 needs a unit: write `65536B`"),
        ("64kib", "unknown unit in '64kib': did you mean `64KiB`?"),
        ("0.3B", "0.3B is not a whole number of bytes"),
        ([], "must be a size, such as `64KiB`"),
    ],
)
def test_a_bad_size_says_what_to_write(value: object, message: str) -> None:
    """A bare number, a wrong case and a fraction of a byte are refused with the remedy."""
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_size(value)


@given(st.integers(0, 10**15).map(lambda ns: ns / 10**9))
def test_durations_round_trip(seconds: float) -> None:
    """Formatting loses nothing."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 1 << 49))
def test_sizes_round_trip(size: int) -> None:
    """Formatting loses nothing."""
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.5, "500ms"), (600.0, "10min"), (7200.0, "2h"), (90.0, "90s"), (1.5, "1500ms")],
)
def test_durations_are_formatted_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    """What people would write."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0B"), (500, "500B"), (65536, "64KiB"), (10**7, "10MB")])
def test_sizes_are_formatted_in_the_largest_whole_unit(size: int, text: str) -> None:
    """What people would write."""
    assert format_size(size) == text


def test_pydantic_reads_both_and_applies_further_constraints() -> None:
    """As annotated types they validate text, and a range after it."""
    assert TypeAdapter(Duration).validate_python("500ms") == 0.5
    assert TypeAdapter(Size).validate_python("64KiB") == 65536
    with pytest.raises(ValidationError):
        TypeAdapter(Annotated[Duration, Ge(1)]).validate_python("500ms")


@pytest.mark.parametrize("text", ["500ms", "2 h", "1.5min", "30", "h", "1.s"])
def test_the_pattern_accepts_what_the_parser_accepts(text: str) -> None:
    """The JSON Schema's pattern and the parser agree."""
    pattern = get_args(Duration)[1].pattern
    try:
        parse_duration(text)
    except ValueError:
        assert not re.search(pattern, text)
    else:
        assert re.search(pattern, text)


def test_holding_the_types_does_not_load_pydantic() -> None:
    """pm.notation and pm.config.model import without the validator (the service's memory budget)."""
    modules = "{'pydantic', 'yaml'}.isdisjoint(sys.modules)"
    code = f"import sys, pm.notation, pm.config.model; sys.exit(not {modules})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_free_port_is_asked_for_on_purpose() -> None:
    """Port 0 is refused unless the caller admits it; an IPv6 address comes without its brackets."""
    assert parse_listen("[::1]:8642") == (ip_address("::1"), 8642)
    assert parse_listen("127.0.0.1:0", lowest_port=0) == (ip_address("127.0.0.1"), 0)
    with pytest.raises(ValueError, match="port must be between 1 and 65535, not 0"):
        parse_listen("127.0.0.1:0")


def test_an_end_has_both_brackets_or_none() -> None:
    """An IPv6 address may stand in brackets also without a port."""
    for text in ("[::1]", "::1"):
        assert parse_end(text) == (ip_address("::1"), 0)
    for text in ("[::1", "::1]", "[]", "[192.0.2.1"):
        with pytest.raises(ValueError, match="with or without a port"):
            parse_end(text)
