# SPDX-License-Identifier: Apache-2.0
"""What ``why SUBJECT`` takes its argument for, and what it knows of programs."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from pm.cli.applications import remedies
from pm.cli.process_sockets import Process, _executable, _unit, read_process
from pm.cli.why_subject import Kind, parse_subject
from pm.errors import PmError


@pytest.mark.parametrize(
    ("text", "kind", "meant"),
    [
        ("0x8b3e25f1", Kind.TOKEN, "0x8b3e25f1"),
        ("8b3e25f1", Kind.TOKEN, "8b3e25f1"),
        ("cafecafe", Kind.TOKEN, "cafecafe"),
        ("12345678", Kind.TOKEN, "12345678"),
        ("2335057393", Kind.TOKEN, "2335057393"),
        ("1", Kind.PID, "1"),
        ("4194304", Kind.PID, "4194304"),
        ("4194305", Kind.TOKEN, "4194305"),
        ("/", Kind.CGROUP, "/"),
        ("/a.slice/", Kind.CGROUP, "/a.slice"),
        ("/sys/fs/cgroup/a", Kind.CGROUP, "/a"),
        ("0::/a", Kind.CGROUP, "/a"),
        ("ControlGroup=/a", Kind.CGROUP, "/a"),
        ("10.0.0.1", Kind.ADDRESS, "10.0.0.1"),
        ("10.0.0.1:80", Kind.ADDRESS, "10.0.0.1:80"),
        ("fd00::1", Kind.ADDRESS, "fd00::1"),
        ("[fd00::1]:80", Kind.ADDRESS, "[fd00::1]:80"),
    ],
)
def test_subjects(text: str, kind: Kind, meant: str) -> None:
    """A token has `0x` or eight digits, as `ss` prints it; another number is a PID if it can be one."""
    assert parse_subject(text) == (kind, meant)


@pytest.mark.parametrize(
    "text", ["", "-", "never", "../status", "10.0.0.1:", ":80", "a.service", "²", "9" * 5000]
)
def test_what_is_no_subject(text: str) -> None:
    """The remedy shows what is one."""
    with pytest.raises(PmError) as raised:
        parse_subject(text)
    assert raised.value.remedy


def test_a_process_and_its_sockets() -> None:
    """This one: what it opens is found by its inode."""
    with socket.socket() as one:
        process = read_process(os.getpid())
        assert os.fstat(one.fileno()).st_ino in process.inodes
    assert process.namespace == os.stat("/proc/self/ns/net").st_ino
    assert (process.go, process.static) == (False, False)


def elf(*kinds: int, note: bytes = b"") -> bytes:
    """The head of an executable with program headers of these kinds."""
    header = b"\x7fELF\x02\x01\x01".ljust(32, b"\0") + struct.pack("<QQIHHH", 64, 0, 0, 64, 56, len(kinds))
    return (
        header.ljust(64, b"\0") + b"".join(struct.pack("<I", kind).ljust(56, b"\0") for kind in kinds) + note
    )


@pytest.mark.parametrize(
    ("content", "go_and_static"),
    [
        (elf(1, 3), (False, False)),
        (elf(1), (False, True)),
        (elf(1, 4, note=b"\4\0\0\0S\0\0\0\4\0\0\0Go\0\0"), (True, True)),
        (elf(1)[:20], (False, False)),
        (elf(1)[:66], (False, True)),
        (b"#!/bin/sh", (False, False)),
        (b"", (False, False)),
    ],
)
def test_executables(tmp_path: Path, content: bytes, go_and_static: tuple[bool, bool]) -> None:
    """`mptcpize` needs the dynamic linker; Go has a switch of its own. What is cut off does no harm."""
    file = tmp_path / "x"
    file.write_bytes(content)
    assert _executable(file) == go_and_static
    assert _executable(tmp_path / "gone") == (False, False)


STATIC = "# it has no dynamic linker, which mptcpize needs: only an option of its own helps"


def test_units() -> None:
    """The service that a process belongs to, for `mptcpize enable`."""
    assert _unit("1:name=systemd:/x\n0::/system.slice/a.service\n") == "a.service"
    assert _unit("0::/user.slice/user@1.service/app.slice/b.service/sub\n") == "b.service"
    assert _unit("0::/\n") == ""


@pytest.mark.parametrize(
    ("name", "facts", "server", "expected"),
    [
        ("nginx", {}, True, ["# in its configuration: listen 443 ssl multipath;"]),
        ("nginx", {}, False, ["mptcpize run COMMAND"]),
        ("curl", {}, False, ["curl --mptcp …"]),
        ("caddy", {"go": True, "static": True}, True, ["GODEBUG=multipathtcp=1 COMMAND"]),
        ("x", {"static": True}, True, [STATIC]),
        ("x", {"unit": "x.service"}, True, ["mptcpize enable x.service", "mptcpize run COMMAND"]),
        ("x", {"unit": "$(x).service"}, True, ["mptcpize enable '$(x).service'", "mptcpize run COMMAND"]),
        ("x", {"unit": "-x.service"}, True, ["mptcpize run COMMAND"]),
    ],
)
def test_remedies(name: str, facts: dict[str, object], server: bool, expected: list[str]) -> None:
    """The program's own option, or else what works from outside."""
    values = {"pid": 1, "name": name, "inodes": [], "namespace": 1, "unit": "", "go": False, "static": False}
    assert remedies(Process(**{**values, **facts}), server=server) == expected  # type: ignore[arg-type]
