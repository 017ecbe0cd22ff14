# SPDX-License-Identifier: Apache-2.0
"""Records of real sessions: what they say is what was carried, and a full disk costs records alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pm.records.destinations import RecordFile
from pm.records.record import record_schema
from tests.lab.commands import run
from tests.lab.lab import Lab
from tests.lab.scenarios import config, mesh, policy, wait_pairs
from tests.lab.service import Service
from tests.lab.waiting import wait_equal, wait_for

from .test_figures import PAYLOAD, assert_agree, close_join, connect, only_session, ss_bytes, wait_closed

Json = dict[str, Any]
# Writes all at once, and is gone while most of it is still on its way.
WRITE_AND_CLOSE = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
s.connect((sys.argv[1], 5000))
s.send(b"x")
s.recv(1)
left = int(sys.argv[2])
while left:
    left -= s.send(b"x" * min(left, 65536))
"""


def serve(lab: Lab, path: Path, **rules: Any) -> Service:
    records = {"to": "file", "path": str(path), **rules}
    return lab.service(config(policy(lab, "a"), records=records))


def records_in(path: Path) -> list[Json]:
    """Each satisfies the schema."""
    validator = Draft202012Validator(record_schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for record in found:
        validator.validate(record)
    return found


def wait_records(path: Path, count: int, deadline_s: float = 10.0) -> list[Json]:
    return wait_for(
        lambda: records_in(path),
        f"{count} records",
        until=lambda records: len(records) == count,
        deadline_s=deadline_s,
    )


def counts(service: Service) -> tuple[int, int]:
    """Records that were written, and that were lost."""
    counters = service.get("/v1/status")["counters"]
    return counters["records_written"], counters["records_lost"]


@pytest.mark.parametrize("family", [4, 6])
def test_a_record_says_what_was_carried(lab: Lab, family: int) -> None:
    """All subflows, also that which was closed earlier, with what ss showed; mode 0640."""
    lab.server()
    path = lab.directory / "records.jsonl"
    service = serve(lab, path)
    client = connect(lab, family)
    before = ss_bytes(lab)
    join = close_join(service)
    wait_closed(service, 1, "kernel")
    before |= ss_bytes(lab)
    session = only_session(service)
    assert records_in(path) == []
    client.close()
    (record,) = wait_records(path, 1)
    for key in ("token", "role", "policy", "path_manager", "managed", "cgroup", "created_at"):
        assert record[key] == session[key]
    assert (record["role"], record["cgroup"]) == ("client", lab.cgroup_path("a"))
    assert record["cgroup_id"] == lab.cgroup_id("a")
    assert record["reason"] == "closed"
    assert record["local"]["ip"] == lab.address("client", 1, family)
    assert record["remote"] == {"ip": lab.address("server", 1, family), "port": 5000}
    assert [s["id"] for s in record["subflows"]] == [join, session["subflows"][0]["id"]]
    assert [s["reason"] for s in record["subflows"]] == ["by hand", "the session ended"]
    assert [s["interface"] for s in record["subflows"]] == ["eth1", "eth0"]
    for subflow in record["subflows"]:
        assert subflow["source"] == "kernel"
        assert_agree(subflow, before[subflow["id"]])
    for name in ("bytes_acked", "bytes_received"):
        assert record["totals"][name] == sum(s[name] for s in record["subflows"]) >= PAYLOAD
    assert path.stat().st_mode & 0o777 == 0o640
    assert counts(service) == (1, 0)


def test_what_is_on_its_way_when_a_session_ends_counts(lab: Lab) -> None:
    """The application has closed its socket long before the last byte is acknowledged."""
    size = 1_000_000
    lab.server("--sink")
    lab.shape(1, 8)
    lab.shape(2, 8)
    path = lab.directory / "records.jsonl"
    serve(lab, path)
    command = [sys.executable, "-c", WRITE_AND_CLOSE, lab.address("server", 1), str(size)]
    assert lab.popen(command, cgroup="a").wait(30) == 0
    (record,) = wait_records(path, 1, deadline_s=30.0)
    assert record["totals"]["bytes_acked"] >= size
    assert {s["source"] for s in record["subflows"]} == {"kernel"}


def test_a_reset_session_has_a_record(lab: Lab) -> None:
    """The kernel sends no event for it."""
    server = lab.server()
    path = lab.directory / "records.jsonl"
    serve(lab, path)
    client = connect(lab, 4)
    server.process.kill()  # unread data at the peer: MP_FASTCLOSE or RST
    client.process.kill()
    (record,) = wait_records(path, 1, deadline_s=60.0)
    assert record["totals"]["bytes_acked"] >= PAYLOAD


def test_a_dead_path_does_not_hold_up_the_end_of_the_service(lab: Lab) -> None:
    """A record waits for its last socket, but not when the service stops."""
    lab.server()
    path = lab.directory / "records.jsonl"
    service = serve(lab, path)
    client = connect(lab, 4)
    before = ss_bytes(lab)
    ip = lab.address("client", 2)
    lab.del_address("client", 2, ip)
    wait_closed(service, 1, "last_sample")
    client.close()
    wait_equal(service.sessions, [])
    assert records_in(path) == []
    service.stop()
    (record,) = records_in(path)
    (lost,) = [s for s in record["subflows"] if s["local"]["ip"] == ip]
    assert lost["source"] == "last_sample"
    assert_agree(lost, before[lost["id"]])


def test_sessions_that_end_just_before_the_service(lab: Lab) -> None:
    """Their ends wait to be read when SIGTERM comes, above all where programs open the subflows."""
    lab.server()
    path = lab.directory / "records.jsonl"
    service = serve(lab, path)
    client = lab.client(cgroup="a")
    client.open(5)
    wait_for(service.sessions, "5 sessions", until=lambda sessions: len(sessions) == 5)
    client.close()
    client.report()  # asyncio closes a socket in the next turn of its loop
    service.terminate()
    assert [record["reason"] for record in records_in(path)] == ["closed"] * 5


def test_a_reload_changes_where_records_go(lab: Lab) -> None:
    """To another file, and to nowhere."""
    lab.server()
    first, second = (lab.directory / name for name in ("first", "second"))
    service = serve(lab, first)
    client = lab.client(cgroup="a")

    def session() -> None:
        client.open()
        wait_pairs(lab, mesh(lab))
        client.close()
        wait_equal(service.sessions, [])

    session()
    wait_records(first, 1)
    service.configure(config(policy(lab, "a"), records={"to": "file", "path": str(second)}))
    service.reload()
    session()
    wait_records(second, 1)
    service.configure(config(policy(lab, "a")))
    service.reload()
    session()
    assert counts(service) == (2, 0)
    assert [len(records_in(path)) for path in (first, second)] == [1, 1]


def test_standard_output(lab: Lab) -> None:
    """Records there, logs on standard error."""
    lab.server()
    output, errors = lab.directory / "out", lab.directory / "err"
    service = lab.service(config(policy(lab, "a"), records={"to": "stdout"}), start=False)
    service.program = ["sh", "-c", f'exec "$@" >{output} 2>{errors}', "sh", *service.program]
    service.start()
    connect(lab, 4).close()
    wait_records(output, 1)
    assert all("event" in json.loads(line) for line in errors.read_text().splitlines())


JOURNALD = "/lib/systemd/systemd-journald"
# In a mount namespace: a journal of its own, which writes $1 times what came as a record to standard output.
READ_JOURNAL = f"""
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal /run/etc
printf '[Journal]\\nStorage=volatile\\nAudit=no\\nReadKMsg=no\\n' >/run/etc/journald.conf
mount --bind /run/etc /etc/systemd
echo 0123456789abcdef0123456789abcdef >/run/machine-id
mount --bind /run/machine-id /etc/machine-id
{JOURNALD} 2>/dev/null &
trap "kill $!" EXIT
until [ -S /run/systemd/journal/socket ]; do sleep 0.01; done
"$0" -c 'import sys
from pm.records.destinations import Journal
Journal().write([sys.stdin.buffer.read()])'
until journalctl -D /run/log/journal MPTCP_PM_RECORD=session -o cat 2>/dev/null | grep .; do sleep 0.01; done
"""


@pytest.mark.skipif(not os.path.exists(JOURNALD), reason="systemd-journald is not installed")
def test_the_journal_keeps_a_line_as_it_is() -> None:
    """systemd's own: also one that is as long as records get."""
    line = b'{"cgroup":"/\xc3\xa4=\\n","x":"' + b"y" * 60_000 + b'"}\n'
    shell = ["unshare", "--mount", "--propagation", "private", "sh", "-c", READ_JOURNAL, sys.executable]
    done = subprocess.run(shell, input=line, capture_output=True, timeout=60, check=False)
    assert done.stdout == line, done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 64 KiB, seen by the services of labs that are made later."""
    directory = tmp_path / "disk"
    directory.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(directory))
    yield directory
    run("umount", "--lazy", str(directory))


def fill(directory: Path) -> Path:
    """Take all room that is left; the file that has it."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))
    return path


def test_a_line_is_there_whole_or_not_at_all(small_disk: Path) -> None:
    """What fits of a line that does not fit is taken back."""
    path = small_disk / "records"
    file = RecordFile(path, 1 << 20)
    line = b"x" * 3000 + b"\n"
    with pytest.raises(OSError, match="No space"):  # noqa: PT012 how many have room is the kernel's
        for _ in range(100):
            file.write([line])
    content = path.read_bytes()
    assert content
    assert content == line * (len(content) // len(line))
    file.close()


def test_a_full_disk_costs_records_and_nothing_else(small_disk: Path, make_lab: Callable[..., Lab]) -> None:
    """They are counted, the log says why once, sessions get their subflows; then there is room again."""
    lab = make_lab()
    lab.server()
    path = small_disk / "records.jsonl"
    filler = fill(small_disk)
    service = serve(lab, path)
    client = lab.client(cgroup="a")
    for lost in range(1, 4):
        client.open()
        wait_pairs(lab, mesh(lab))
        client.close()
        wait_equal(lambda: counts(service), (0, lost))
    filler.unlink()
    client.open()
    wait_pairs(lab, mesh(lab))
    client.close()
    wait_equal(lambda: counts(service), (1, 3))
    assert len(records_in(path)) == 1
    lines = [json.loads(line) for line in service.log().splitlines()]
    (told,) = [line for line in lines if line["event"] == "records_lost"]
    assert (told["to"], told["reason"]) == (str(path), "No space left on device")
