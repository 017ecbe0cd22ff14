# SPDX-License-Identifier: Apache-2.0
"""docker/compose.yaml on networks that have IPv6."""

from __future__ import annotations

from tests.lab.containers import Project, project
from tests.lab.traffic import assert_same_bytes
from tests.lab.waiting import wait_for

FILES = ("docker/compose.yaml", "tests/container/compose.yaml", "tests/container/compose.ipv6.yaml")
MEBIBYTE = 1 << 20


def test_both_networks_carry_data() -> None:
    """NET_ADMIN alone: a session over IPv6 has a subflow on each network, and both carry data."""
    with project(*FILES, name="-ipv6") as made:
        made.up()
        server = made.traffic("server", "server")
        address = made.run("application", "getent", "ahostsv6", "server").split()[0]
        client = made.traffic("application", "client", address)
        client.open()
        # The server announces its IPv4 addresses too.
        wait_for(lambda: carried(made), "both networks", until=lambda acked: len(acked) == 2)
        client.send(bytes=64 * MEBIBYTE)
        assert all(count > 100_000 for count in carried(made).values()), carried(made)
        assert assert_same_bytes(client, server) > 64 * MEBIBYTE
        assert [session["policy"] for session in made.sessions()] == ["application"]
        made.end(client)
        made.end(server)


def carried(made: Project) -> dict[str, int]:
    """By local address of the networks' IPv6: acknowledged bytes."""
    return {ip: count for ip, count in made.acked().items() if ip.startswith("[fd6d:")}
