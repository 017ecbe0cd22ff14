# SPDX-License-Identifier: Apache-2.0
"""What the next start must know and the kernel does not tell: a JSON document in the state directory.

Each part of the service keeps values under keys of its own. It is written at most once a second: a
service that is killed loses the last second.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from pm.log import get_logger

INTERVAL_S = 1.0
_WRITING = threading.Lock()
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = get_logger()


class Notes:
    """The document; made by ``open``."""

    def __init__(self, file: Path, subject: Mapping[str, str | int], found: Mapping[str, Any]) -> None:
        self._file = file
        self._subject = dict(subject)
        self._found = found
        self._makers: dict[str, Callable[[], Any]] = {}
        self._touched = asyncio.Event()
        self._failed = False

    @classmethod
    @asynccontextmanager
    async def open(cls, file: Path, *, netns_cookie: int) -> AsyncIterator[Self]:
        """Read what the service before left, of this boot and network namespace; write at the end."""
        subject = await asyncio.to_thread(_subject, netns_cookie)
        self = cls(file, subject, await asyncio.to_thread(_read, file, subject))
        try:
            yield self
        finally:
            await self._write()

    def found(self, key: str) -> Any:
        """What the service before kept under a key: anything that JSON can be, or None."""
        return self._found.get(key)

    def keep(self, key: str, make: Callable[[], Any]) -> None:
        """From now on, keep ``make()`` under a key: a new value at each call, made in the event loop."""
        self._makers[key] = make

    def touch(self) -> None:
        """Something that is kept has changed."""
        self._touched.set()

    async def run(self) -> None:
        """Write forever, within a second after a ``touch``."""
        while True:
            await self._touched.wait()
            await self._write()
            await asyncio.sleep(INTERVAL_S)

    async def _write(self) -> None:
        self._touched.clear()
        document = {key: value for key, make in self._makers.items() if (value := make())}
        try:
            await asyncio.to_thread(_replace, self._file, self._subject, document)
        except OSError as e:
            if not self._failed:
                log.warning("notes_not_written", file=str(self._file), error=e.strerror)
            self._failed = True
            self._touched.set()  # tried again
        else:
            self._failed = False


def _subject(netns_cookie: int) -> dict[str, str | int]:
    return {"boot": BOOT_ID.read_text().strip(), "netns_cookie": netns_cookie}


def _read(file: Path, subject: Mapping[str, str | int]) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(document, dict) or any(document.get(key) != value for key, value in subject.items()):
        return {}
    return document


def _replace(file: Path, subject: Mapping[str, str | int], document: Mapping[str, Any]) -> None:
    """Write the file anew, or remove it where there is nothing to note. Raises OSError."""
    if not document:
        file.unlink(missing_ok=True)
        return
    with _WRITING:  # the last write may find one that was cancelled still at work
        _write_anew(file, {**subject, **document})


def _write_anew(file: Path, document: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w") as stream:
            json.dump(document, stream, separators=(",", ":"))
        new.replace(file)
    except OSError:
        new.unlink(missing_ok=True)
        raise
