# SPDX-License-Identifier: Apache-2.0
"""Records reach a file whole, or are lost and counted; nobody waits for them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from pm.config.model import Records, RecordsTo
from pm.records import writer as writer_module
from pm.records.destinations import Destination, Journal, RecordFile, StandardOutput
from pm.records.recorder import Recorder
from pm.records.writer import Tally, Writer
from tests.lab.waiting import wait_for


class Gate:
    """A destination that writes nothing before it is opened, and then what is wanted, line by line."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self._write = write

    def write(self, lines: Sequence[bytes]) -> int:
        self.entered.set()
        self.open.wait()
        self._write(lines[0])
        return 1

    def close(self) -> None:
        pass


@contextmanager
def writing(destination: Destination) -> Iterator[tuple[Writer, Tally, list[OSError]]]:
    tally, troubles = Tally(), list[OSError]()
    writer = Writer(destination, tally=tally, on_trouble=troubles.append)
    yield writer, tally, troubles
    writer.close()


def written(tally: Tally, count: int) -> None:
    wait_for(lambda: tally.written, f"{count} records", until=lambda number: number == count)


def test_a_file_has_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    """0640, as the group of the administrators reads it."""
    path = tmp_path / "records"
    former = os.umask(0o077)
    try:
        file = RecordFile(path, 1000)
        file.write([b"a\n"])
        file.close()
    finally:
        os.umask(former)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_is_begun_anew_before_it_is_too_large(tmp_path: Path) -> None:
    """The one before is kept, and no other; a line that is larger than all stands alone."""
    path = tmp_path / "records"
    file = RecordFile(path, 10)
    for line in (b"1234\n", b"5678\n", b"9\n", b"longer than ten\n"):
        file.write([line])
    assert path.read_bytes() == b"longer than ten\n"
    assert path.with_name("records.1").read_bytes() == b"9\n"
    file.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["records", "records.1"]


def test_lines_that_come_together(tmp_path: Path) -> None:
    """They are written at once, and none goes beyond the size because of it."""
    path = tmp_path / "records"
    file = RecordFile(path, 10)
    lines = [b"1\n", b"23\n", b"456\n", b"7\n", b"longer than ten\n", b"8\n"]
    taken = []
    while lines:
        taken.append(file.write(lines))
        lines = lines[taken[-1] :]
    file.close()
    assert taken == [3, 1, 1, 1]
    assert path.read_bytes() == b"8\n"
    assert path.with_name("records.1").read_bytes() == b"longer than ten\n"


def test_a_disk_that_has_room_for_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are whole in the file, or not there."""
    room = 8

    def write(fd: int, data: bytes, write: Callable[[int, bytes], int] = os.write) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(fd, data[:room])
        room -= written
        return written

    monkeypatch.setattr("pm.records.destinations.os.write", write)
    path = tmp_path / "records"
    with writing(RecordFile(path, 1000)) as (writer, tally, troubles):
        writer.put([b"123\n", b"456\n", b"789\n"])
        wait_for(lambda: tally.lost, "lost records", until=lambda lost: lost == 1)
    assert (path.read_bytes(), tally.written) == (b"123\n456\n", 2)
    assert len(troubles) == 1
    path.unlink()
    room = 6
    with writing(RecordFile(path, 1000)) as (writer, tally, _):
        writer.put([b"123\n", b"456\n"])
        wait_for(lambda: tally.lost, "lost records", until=lambda lost: lost == 1)
    assert (path.read_bytes(), tally.written) == (b"123\n", 1)


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_file_may_be_taken_away(tmp_path: Path, how: str) -> None:
    """As logrotate does it: the next line is in a new one."""
    path = tmp_path / "records"
    file = RecordFile(path, 1000)
    file.write([b"a\n"])
    if how == "moved":
        path.rename(tmp_path / "away")
    else:
        path.unlink()
    file.write([b"b\n"])
    file.close()
    assert path.read_bytes() == b"b\n"


def test_a_file_whose_last_line_is_torn(tmp_path: Path) -> None:
    """A service that died in the middle of a line spoils that line only."""
    path = tmp_path / "records"
    path.write_bytes(b'{"a": 1}\n{"b"')
    file = RecordFile(path, 1000)
    file.write([b"c\n"])
    file.close()
    assert path.read_bytes() == b'{"a": 1}\n{"b"\nc\n'


def test_what_is_no_file_is_not_written_to(tmp_path: Path) -> None:
    """A FIFO would wait for its reader for ever."""
    path = tmp_path / "records"
    os.mkfifo(path)
    file = RecordFile(path, 1000)
    for _ in range(2):
        with pytest.raises(OSError, match="not a regular file"):
            file.write([b"a\n"])


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, when: str) -> None:
    """Whoever may write to the directory does not choose which file of another is written to."""
    path, other = tmp_path / "records", tmp_path / "other"
    other.write_text("precious")
    file = RecordFile(path, 1000)
    if when == "meanwhile":
        file.write([b"a\n"])
        path.unlink()
    path.symlink_to(other)
    with pytest.raises(OSError, match="symbolic link"):
        file.write([b"b\n"])
    assert other.read_text() == "precious"


def test_a_directory_that_comes_back(tmp_path: Path) -> None:
    """Records are lost and counted while it is away; one complaint for all of them."""
    path = tmp_path / "logs" / "records"
    with writing(RecordFile(path, 1000)) as (writer, tally, troubles):
        for _ in range(3):
            writer.put([b"a\n"])
        wait_for(lambda: tally.lost, "lost records", until=lambda lost: lost == 3)
        path.parent.mkdir()
        writer.put([b"b\n"])
        written(tally, 1)
        assert [e.strerror for e in troubles] == ["No such file or directory"]
    assert (path.read_bytes(), tally.lost) == (b"b\n", 3)


def test_nobody_waits_for_a_slow_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into the queue is lost and counted, what is in it is written."""
    monkeypatch.setattr(writer_module, "QUEUE_BYTES", 16)
    lines: list[bytes] = []
    gate = Gate(lines.append)
    with writing(gate) as (writer, tally, _):
        writer.put([b"first\n"])
        assert gate.entered.wait(10)
        assert [writer.put([line]) for line in (b"1234\n", b"5678\n", b"9\n")] == [True, True, False]
        assert tally.lost == 1
        gate.open.set()
        written(tally, 3)
    assert lines == [b"first\n", b"1234\n", b"5678\n"]


def test_a_destination_that_never_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits for a bounded time; what is left is counted."""
    monkeypatch.setattr(writer_module, "FLUSH_S", 0.05)
    gate = Gate(lambda line: None)
    with writing(gate) as (writer, tally, troubles):
        writer.put([b"a\n"])
        assert gate.entered.wait(10)
        writer.put([b"b\n", b"c\n"])
    assert (tally.written, tally.lost) == (0, 3)
    assert [error.strerror for error in troubles] == ["3 records still waited to be written"]
    gate.open.set()
    writer.close()
    assert (tally.written, tally.lost) == (0, 3)


def test_another_destination_comes_after_the_former(tmp_path: Path) -> None:
    """What waits for the former is in it before anything is in the next."""
    lines: list[str] = []
    gate = Gate(lambda line: lines.append(f"former: {line.decode()}"))
    tally, troubles = Tally(), list[OSError]()
    former = Writer(gate, tally=tally, on_trouble=troubles.append)
    former.put([b"a"])
    next_one = Gate(lambda line: lines.append(f"next: {line.decode()}"))
    next_one.open.set()
    later = Writer(next_one, tally=tally, on_trouble=troubles.append, after=former)
    later.put([b"b"])
    gate.open.set()
    later.close()
    assert (lines, tally.written, tally.lost) == (["former: a", "next: b"], 2, 0)


def test_the_journal_gets_the_line_as_its_message(tmp_path: Path) -> None:
    """One datagram with the fields by which journalctl finds it; a journal that is away costs the record."""
    path = str(tmp_path / "socket")
    journal = Journal(path)
    with pytest.raises(FileNotFoundError):
        journal.write([b"{}\n"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        journal.write([b'{"a":1}\n'])
        fields = dict(field.split(b"=", 1) for field in server.recv(1000).splitlines())
    assert fields == {
        b"PRIORITY": b"6",
        b"SYSLOG_IDENTIFIER": b"mptcp-pm",
        b"MPTCP_PM_RECORD": b"session",
        b"MESSAGE": b'{"a":1}',
    }
    journal.close()


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The line, and nothing else."""
    StandardOutput().write([b"{}\n"])
    assert capfdbinary.readouterr().out == b"{}\n"


def test_standard_output_that_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever shares it may have made it so: a line that is longer than what a pipe takes comes whole."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    monkeypatch.setattr("pm.records.destinations._STDOUT", writing)
    line = b"x" * (1 << 20) + b"\n"
    found: list[bytes] = []
    with open(reading, "rb") as output:
        reader = threading.Thread(target=lambda: found.append(output.read()))
        reader.start()
        try:
            assert StandardOutput().write([line]) == 1
        finally:
            os.close(writing)
            reader.join()
    assert found == [line]


async def test_what_is_lost_is_told_once_for_each_destination(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A path that was corrected, and is wrong again, has a line of its own; records left at the end, too."""
    told: list[tuple[object, str]] = []
    monkeypatch.setattr(
        "pm.records.recorder.log",
        SimpleNamespace(error=lambda _, *, about, to, reason, remedy: told.append((about, reason))),
    )
    monkeypatch.setattr(writer_module, "FLUSH_S", 0.05)
    gates = [Gate(lambda line: None) for _ in range(2)]
    waiting = list(gates)
    monkeypatch.setattr("pm.records.recorder._destination", lambda rules: waiting.pop(0))
    recorder = Recorder()
    for gate, name in zip(gates, ("one", "two"), strict=True):
        await recorder.apply(Records(to=RecordsTo.FILE, path=str(tmp_path / name)))
        assert recorder._writer
        recorder._writer.put([b"a\n"])
        await asyncio.to_thread(gate.entered.wait, 10)
        recorder._writer.put([b"b\n"])
    await recorder.close()
    await asyncio.sleep(0)
    assert [about for about, _ in told] == [str(tmp_path / name) for name in ("one", "two")]
    for gate in gates:
        gate.open.set()
