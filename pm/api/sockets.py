# SPDX-License-Identifier: Apache-2.0
"""The Unix socket, the bearer token and the TLS certificate: files that may be wrong.

Every function here blocks: call it from a thread.
"""

from __future__ import annotations

import os
import socket
import ssl
import stat
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from pm.config.model import Tls
from pm.errors import PmError
from pm.notation import parse_listen

SOCKET_MODE = 0o660
DIRECTORY_MODE = 0o750
TOKEN_MIN_LENGTH = 16


class TokenFile(NamedTuple):
    """``remedy`` is the command that takes it from others who can read it, or ""."""

    token: bytes
    remedy: str


def bind_unix(path: str) -> socket.socket:
    """A bound socket that does not listen yet. It replaces the socket of a service that died.

    Raises PmError if another process listens, or if the path cannot be used.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        Path(path).parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        _remove_stale(path)
        bound.bind(path)
        # Until listen() nobody can connect: the mode is never wider than this.
        os.chmod(path, SOCKET_MODE)
    except OSError as e:
        bound.close()
        reason = e.strerror or str(e)  # "AF_UNIX path too long" has no errno
        raise PmError(
            f"cannot listen on {path}: {reason}", "set `api.unix` to a path that can be created"
        ) from e
    except PmError:
        bound.close()
        raise
    return bound


def bind_tcp(listen: str, key: str) -> socket.socket:
    """A bound socket that does not listen yet; ``key`` is where ``listen`` was configured. Raises PmError."""
    host, port = host_and_port(listen, key)
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
    except OSError as e:
        bound.close()
        raise PmError(f"cannot listen on {listen}: {e.strerror}", f"correct `{key}`") from e
    return bound


def unlink_unix(path: str, inode: int) -> None:
    """Remove the socket's name, unless another service has taken it over."""
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise PmError(f"cannot listen on {path}: it is not a socket", "remove it, or set `api.unix`")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except TimeoutError:
            raise _in_use(path) from None
        else:
            raise _in_use(path)


def _in_use(path: str) -> PmError:
    return PmError(f"another service is listening on {path}", "stop it, or set `api.unix` to another path")


def read_token(path: str) -> TokenFile:
    """The first line of the token file. Raises PmError; its message never contains the token."""
    try:
        # Non-blocking: opening a FIFO without a writer would hang.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise PmError(f"the token file {path} is not a regular file", "correct `api.tcp.token_file`")
            lines = file.read(4096).splitlines()
    except OSError as e:
        raise PmError(
            f"cannot read the token file {path}: {e.strerror}", "correct `api.tcp.token_file`"
        ) from e
    token = lines[0].strip() if lines else b""
    if len(token) < TOKEN_MIN_LENGTH:
        raise PmError(
            f"the token in {path} is shorter than {TOKEN_MIN_LENGTH} characters",
            f"run `openssl rand -hex 32 > {quote(path)}`",
        )
    return TokenFile(token, f"chmod 600 {quote(path)}" if mode & 0o077 else "")


def tls_context(tls: Tls) -> ssl.SSLContext:
    """The server's TLS settings. Raises PmError if certificate and key cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        for file in (tls.cert, tls.key):
            if not stat.S_ISREG(os.stat(file).st_mode):  # OpenSSL would wait for the writer of a FIFO
                raise PmError(f"{file} is not a regular file", "correct `api.tcp.tls`")
        context.load_cert_chain(tls.cert, tls.key)
    except OSError as e:  # ssl.SSLError is one
        reason = e.strerror or str(e)
        raise PmError(
            f"cannot use the certificate {tls.cert} with the key {tls.key}: {reason}", "correct `api.tcp.tls`"
        ) from e
    return context


def host_and_port(listen: str, key: str) -> tuple[str, int]:
    """Address and port of a configuration's ``key``; port 0, which no configuration has, is any free one.

    Raises PmError for text that is not an address and a port.
    """
    try:
        address, port = parse_listen(listen, lowest_port=0)
    except ValueError as e:
        raise PmError(f"`{key}`: {e}") from e
    return str(address), port
