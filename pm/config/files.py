# SPDX-License-Identifier: Apache-2.0
"""A file has one purpose: records written to where the token is, say, would destroy it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from pm.config.document import Document, Loc, one_line, path_of
from pm.config.model import Config, RecordsTo
from pm.errors import ConfigError, Problem


class _Use(NamedTuple):
    """What a path of the configuration is for; ``loc`` is None for the configuration itself."""

    loc: Loc | None
    path: str
    purpose: str


def check_files(document: Document, config: Config) -> None:
    """Raises ConfigError where the service would write to a file that has another purpose."""
    others = list(_others(document, config))
    problems = []
    for written in _written(config):
        assert written.loc
        names = _names(written.path)
        for other in others:
            if other.loc != written.loc and names & _names(other.path):
                what = f"{written.path} is {other.purpose}: {written.purpose} would replace it"
                problems.append(
                    Problem(
                        document.file,
                        document.line_of(written.loc),
                        path_of(written.loc),
                        one_line(f"{what}, name another file"),
                    )
                )
    if problems:
        raise ConfigError(problems)


def _written(config: Config) -> Iterator[_Use]:
    if config.records and config.records.to is RecordsTo.FILE:
        loc, path = ("records", "path"), config.records.path
        yield _Use(loc, path, "records")
        yield _Use(loc, f"{path}.1", "the former records")
    if config.api.unix:
        yield _Use(("api", "unix"), config.api.unix, "the socket")


def _others(document: Document, config: Config) -> Iterator[_Use]:
    yield _Use(None, document.file, "the configuration")
    yield from (use for use in _written(config) if use.purpose != "the former records")
    if tcp := config.api.tcp:
        yield _Use(("api", "tcp", "token_file"), tcp.token_file, "the token file")
        if tcp.tls:
            yield _Use(("api", "tcp", "tls", "cert"), tcp.tls.cert, "the certificate")
            yield _Use(("api", "tcp", "tls", "key"), tcp.tls.key, "the private key")


def _names(path: str) -> set[object]:
    """What is equal where two paths lead to one file, by whatever name: a link, `..`, another directory."""
    names: set[object] = {os.path.realpath(path)}
    try:
        found = os.stat(path)
    except OSError:
        return names
    return names | {(found.st_dev, found.st_ino)}
