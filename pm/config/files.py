# SPDX-License-Identifier: Apache-2.0
"""A file has one purpose: records written to where the token is, say, would destroy it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from pm.config.document import Document, Loc, one_line, path_of
from pm.config.model import Config, RecordsTo
from pm.errors import ConfigError, Problem
from pm.path_managers.program import Program

NO_RECORDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


RECORDS: Loc = ("records", "path")
TOKEN: Loc = ("api", "tcp", "token_file")
FORMER = "the former records"


class _Use(NamedTuple):
    """What a path of the configuration is for; ``loc`` is empty for the configuration itself."""

    loc: Loc
    path: str
    purpose: str


def check_files(document: Document, config: Config) -> None:
    """Raises ConfigError where the service would write to a file that has another purpose, or to none.

    Nor is the token the first line of a file that others know.
    """
    found = [*_replaced(document, config), *_guessable(document, config)]
    if all(loc != RECORDS for loc, _ in found):
        found += _without_records(config)
    if found:
        raise ConfigError(
            [
                Problem(document.file, document.line_of(loc), path_of(loc), one_line(message))
                for loc, message in found
            ]
        )


def _replaced(document: Document, config: Config) -> Iterator[tuple[Loc, str]]:
    others = list(_others(document, config))
    for written in _written(config):
        names = _names(written.path)
        for other in others:
            if other.loc != written.loc and names & _names(other.path):
                what = f"{written.path} is {other.purpose}: {written.purpose} would replace it"
                yield written.loc, f"{what}, name another file"


def _without_records(config: Config) -> Iterator[tuple[Loc, str]]:
    for use in _written(config):
        kind = _kind(use.path)
        if use.purpose == FORMER and kind == stat.S_IFLNK:
            continue  # a rename takes its place and leaves alone what it leads to
        if use.loc == RECORDS and (what := NO_RECORDS.get(kind)):
            yield use.loc, f"{use.path} is {what}: records need a file of their own, name another"


def _guessable(document: Document, config: Config) -> Iterator[tuple[Loc, str]]:
    if tcp := config.api.tcp:
        names = _names(tcp.token_file)
        written = {use.loc for use in _written(config)}
        for other in _others(document, config):
            if other.loc != TOKEN and other.loc not in written and names & _names(other.path):
                what = f"{tcp.token_file} is {other.purpose}: its first line is no secret"
                yield TOKEN, f"{what}, name another file"


def _written(config: Config) -> Iterator[_Use]:
    if config.records and config.records.to is RecordsTo.FILE:
        path = config.records.path
        yield _Use(RECORDS, path, "records")
        yield _Use(RECORDS, f"{path}.1", FORMER)
    if config.api.unix:
        yield _Use(("api", "unix"), config.api.unix, "the socket")


def _others(document: Document, config: Config) -> Iterator[_Use]:
    """Files that there are for something; the former records are not needed any more."""
    yield _Use((), document.file, "the configuration")
    yield from (use for use in _written(config) if use.purpose != FORMER)
    if tcp := config.api.tcp:
        yield _Use(TOKEN, tcp.token_file, "the token file")
        if tcp.tls:
            yield _Use(("api", "tcp", "tls", "cert"), tcp.tls.cert, "the certificate")
            yield _Use(("api", "tcp", "tls", "key"), tcp.tls.key, "the private key")
    for policy in config.policies:
        where: Loc = ("policies", policy.name)
        for plugin in policy.options.plugins:
            yield _Use(where, plugin.source, f"the plug-in of policy `{policy.name}`")
        if isinstance(chosen := policy.path_manager.parameters, Program.Parameters):
            yield _Use(where, chosen.source, f"the path manager of policy `{policy.name}`")


def _kind(path: str) -> int:
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except OSError:
        return 0


def _names(path: str) -> set[object]:
    """What is equal where two paths lead to one file, by whatever name: a link, `..`, another directory."""
    names: set[object] = {os.path.realpath(path)}
    try:
        found = os.stat(path)
    except OSError:
        return names
    return names | {(found.st_dev, found.st_ino)}
