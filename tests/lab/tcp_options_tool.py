#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One end of TCP or MPTCP connections that says what its sockets have, driven by JSON lines on stdin.

tcp_options_tool.py server [--mptcp] [--port 5000]      listens on both families
tcp_options_tool.py client HOST [--mptcp] [--port 5000]
both with [--user-timeout MS] [--congestion NAME]  what the application sets itself, before anything

{"do": "open"}                  client: connect; server: accept
{"do": "send", "bytes": N}      on the newest connection
{"do": "receive", "bytes": N}   on the newest connection, until all are there
{"do": "get"}                   of the newest connection's socket: user_timeout (ms), congestion, cwnd
                                (segments), ato (µs), ports (local, remote), null where it has no such
"""

from __future__ import annotations

import argparse
import ctypes
import json
import socket
import struct
import sys
from typing import Any

IPPROTO_MPTCP = 262
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
TCP_INFO_ATO, TCP_INFO_CWND = 12, 80  # offsets in struct tcp_info, include/uapi/linux/tcp.h


def drop(listener: socket.socket, words: int) -> None:
    """A classic BPF filter (linux/filter.h) on the listener: the data offset in byte 12 of the TCP header."""
    if not words:
        listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        return
    program = [
        (0x30, 0, 0, 12),
        (0x54, 0, 0, 0xF0),
        (0x15, 0, 1, words << 4),
        (6, 0, 0, 0),
        (6, 0, 0, 1 << 16),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    header = struct.pack("HL", len(program), ctypes.addressof(code))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)


def prepared(args: argparse.Namespace, family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP if args.mptcp else 0)
    if args.user_timeout:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, args.user_timeout)
    if args.congestion:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, args.congestion.encode())
    sock.settimeout(20)
    return sock


def get(sock: socket.socket) -> dict[str, Any]:
    def option(level: int, name: int, size: int) -> bytes:
        try:
            return sock.getsockopt(level, name, size)
        except OSError:  # MPTCP passes few of them on
            return b""

    timeout = option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4)
    info = option(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return {
        "user_timeout": struct.unpack("=I", timeout)[0] if timeout else None,
        "congestion": option(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode() or None,
        "cwnd": struct.unpack_from("=I", info, TCP_INFO_CWND)[0] if info else None,
        "ato": struct.unpack_from("=I", info, TCP_INFO_ATO)[0] if info else None,
        "ports": [sock.getsockname()[1], sock.getpeername()[1]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("role", choices=["server", "client"])
    parser.add_argument("host", nargs="?")
    parser.add_argument("--mptcp", action="store_true")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--user-timeout", type=int)
    parser.add_argument("--congestion")
    args = parser.parse_args()
    newest: socket.socket | None = None
    kept: list[socket.socket] = []
    if args.role == "server":
        listener = prepared(args, socket.AF_INET6)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", args.port))
        listener.listen()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if command["do"] == "open" and args.role == "server":
                newest, _ = listener.accept()
                newest.settimeout(20)
            elif command["do"] == "open":
                newest = prepared(args, socket.AF_INET6 if ":" in args.host else socket.AF_INET)
                newest.connect((args.host, args.port))
            elif command["do"] == "drop":
                drop(listener, command["words"])
            elif newest is None:
                raise OSError("no connection yet")
            elif command["do"] == "send":
                newest.sendall(bytes(command["bytes"]))
            elif command["do"] == "receive":
                left = command["bytes"]
                while left:
                    data = newest.recv(min(left, 65536))
                    if not data:
                        raise OSError("the peer has closed")
                    left -= len(data)
            elif command["do"] == "get":
                answer = get(newest)
            if newest and newest not in kept:
                kept.append(newest)
        except OSError as e:
            answer = {"error": str(e)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
