# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pm.linux.netlink.socket_owner import owner_of_peer

NOBODY = 65534


@pytest.fixture(params=["127.0.0.1", "::1"])
def listening(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((request.param, 0))
        sock.listen()
        yield sock


def test_own_connection(listening: socket.socket) -> None:
    """It is ours."""
    with socket.create_connection(listening.getsockname()[:2]):
        accepted, _ = listening.accept()
        with accepted:
            assert owner_of_peer(accepted) == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of other users")
def test_connection_of_another_user(listening: socket.socket) -> None:
    """Known by its user, as long as the socket is open; closed it is nobody's, not root's."""
    host, port = listening.getsockname()[:2]
    code = f"import socket; s = socket.create_connection(({host!r}, {port})); input(); s.close(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], user=NOBODY, stdin=subprocess.PIPE, text=True
    ) as process:
        accepted, _ = listening.accept()
        with accepted:
            assert process.stdin
            assert owner_of_peer(accepted) == NOBODY
            process.stdin.write("\n")
            process.stdin.flush()
            assert accepted.recv(1) == b""  # it has closed
            assert owner_of_peer(accepted) is None
        process.stdin.write("\n")


def wait_for_reset(connection: socket.socket) -> bool:
    """POLLERR comes with the RST."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(10_000))


def test_closed_and_reset_connections(listening: socket.socket) -> None:
    """Nobody's: nothing is answered to them."""
    client = socket.create_connection(listening.getsockname()[:2])
    accepted, _ = listening.accept()
    with accepted:
        client.shutdown(socket.SHUT_WR)
        assert owner_of_peer(accepted) is None
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert wait_for_reset(accepted)
        assert owner_of_peer(accepted) is None
