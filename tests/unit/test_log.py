# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator

import pytest
import structlog

from pm import log
from pm.log_budget import get_limited_logger, take_library_messages
from pm.log_output import PATIENCE_MS, LineOutput


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:], logging.root.level = handlers, level


def test_records_are_json_lines_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """Away from a terminal a record is one JSON object; × stays readable."""
    log.configure("info")
    structlog.get_logger().info("subflow_opened", pair="a × b")
    captured = capfd.readouterr()
    record = json.loads(captured.err)
    assert captured.out == ""
    assert "a × b" in captured.err
    assert (record["event"], record["level"], record["pair"]) == ("subflow_opened", "info", "a × b")
    assert record["time"].endswith("Z")


def test_level_is_a_threshold(capfd: pytest.CaptureFixture[str]) -> None:
    """Records below the level do not appear."""
    log.configure("warning")
    structlog.get_logger().info("quiet")
    assert capfd.readouterr().err == ""


def test_exception_is_in_its_record(capfd: pytest.CaptureFixture[str]) -> None:
    """A traceback is a field of the JSON record, not lines of its own."""
    log.configure("info", "json")
    try:
        raise ValueError("x")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = capfd.readouterr().err.splitlines()
    assert "ValueError: x" in json.loads(line)["exception"]


def test_text_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    """``text`` is a line to read, with a plain traceback."""
    log.configure("info", "text")
    structlog.get_logger().info("ready", sessions=3)
    assert "sessions=3" in capfd.readouterr().err


def test_libraries_records_come_out_the_same_way(capfd: pytest.CaptureFixture[str]) -> None:
    """A warning of asyncio or aiohttp is a record like ours."""
    log.configure("info", "json")
    take_library_messages()
    logging.getLogger("asyncio").warning("slow %s", "callback")
    record = json.loads(capfd.readouterr().err)
    assert (record["event"], record["logger"], record["message"]) == (
        "library_message",
        "asyncio",
        "slow callback",
    )


def test_a_library_has_few_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """Strangers who cause a thousand messages of a library cause a few lines, without endless tracebacks."""
    get_limited_logger.cache_clear()
    log.configure("info", "json")
    take_library_messages()
    for i in range(1000):
        try:
            raise ValueError("x" * 100_000)
        except ValueError:
            logging.getLogger("aiohttp.server").exception("Error handling request from %s", i)
    written = capfd.readouterr().err
    assert 1 <= len(written.splitlines()) <= 10
    assert len(written) < 100_000


def test_no_failure_to_write_is_an_exception() -> None:
    """A full disk, a broken pipe and a closed descriptor cost lines, which are counted."""
    full = os.open("/dev/full", os.O_WRONLY)
    reader, broken = os.pipe()
    os.close(reader)
    closed = os.dup(full)
    os.close(closed)
    for fd in (full, broken, closed):
        output = LineOutput(fd)
        output.write("one")
        output.write("two")
        assert output.lost == 2
    os.close(full)
    os.close(broken)


def test_reader_that_has_stopped_is_not_waited_for() -> None:
    """With a full pipe only the first line waits; a torn line ends before the next one."""
    reader, writer = os.pipe()
    output = LineOutput(writer)
    while not output.lost:
        output.write("x" * 9000)
    began = time.monotonic()
    for _ in range(1000):
        output.write("lost")
    assert time.monotonic() - began < 1000 * PATIENCE_MS / 1000 / 2
    assert output.lost == 1001
    os.read(reader, 1 << 20)
    output.write("again")
    assert os.read(reader, 100) == b"\nagain\n"
    os.close(reader)
    os.close(writer)
