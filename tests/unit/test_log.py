# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from pm import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:], logging.root.level = handlers, level


def test_records_are_json_lines_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Away from a terminal a record is one JSON object; × stays readable."""
    log.configure("info")
    structlog.get_logger().info("subflow_opened", pair="a × b")
    captured = capsys.readouterr()
    record = json.loads(captured.err)
    assert captured.out == ""
    assert "a × b" in captured.err
    assert (record["event"], record["level"], record["pair"]) == ("subflow_opened", "info", "a × b")
    assert record["time"].endswith("Z")


def test_level_is_a_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    """Records below the level do not appear."""
    log.configure("warning")
    structlog.get_logger().info("quiet")
    assert capsys.readouterr().err == ""


def test_exception_is_in_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback is a field of the JSON record, not lines of its own."""
    log.configure("info", "json")
    try:
        raise ValueError("x")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: x" in json.loads(line)["exception"]


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """``text`` is a line to read, with a plain traceback."""
    log.configure("info", "text")
    structlog.get_logger().info("ready", sessions=3)
    assert "sessions=3" in capsys.readouterr().err


def test_libraries_records_come_out_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning of asyncio or aiohttp is a record like ours."""
    log.configure("info", "json")
    logging.getLogger("asyncio").warning("slow %s", "callback")
    record = json.loads(capsys.readouterr().err)
    assert (record["event"], record["logger"], record["message"]) == (
        "library_message",
        "asyncio",
        "slow callback",
    )
