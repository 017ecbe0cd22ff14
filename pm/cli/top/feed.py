# SPDX-License-Identifier: Apache-2.0
"""Answers of the service from a thread of their own: one that does not come never holds up a key."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

from pm.cli.client import Client
from pm.errors import PmError

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Feed(Generic[Request, Answer]):
    """``with Feed(…) as feed:``; it is readable when there is something new.

    ``fetch`` alone uses the client from now on. ``first`` is the answer that is there already.
    """

    def __init__(
        self,
        client: Client,
        fetch: Callable[[Request], Answer],
        request: Request,
        first: Answer,
        interval_s: float,
    ) -> None:
        self._client = client
        self._fetch = fetch
        self._request = request
        self._answer = first
        self._interval_s = interval_s
        self._asked = threading.Event()
        self._ended = False
        self._failure: Exception | None = None
        self._tried = time.monotonic()
        self.error = ""  # of the last try; "" if it was answered

    def __enter__(self) -> Feed[Request, Answer]:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # A daemon: the command does not wait for a service that does not answer. The pipe is left to it.
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._asked.set()

    def fileno(self) -> int:
        return self._read

    @property
    def silent_s(self) -> float:
        """How long a try lasts, 0 until it is later than it should be."""
        late = time.monotonic() - self._tried - self._interval_s
        return late if late > 2 * self._interval_s else 0.0

    def ask(self, request: Request) -> None:
        """Fetch this from now on, at once if it is not what was asked for."""
        if request != self._request:
            self._request = request
            self._asked.set()

    def latest(self) -> Answer:
        """The last answer. Raises what nobody expected from the service."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)
        if self._failure:
            raise self._failure
        return self._answer

    def _run(self) -> None:
        self._asked.wait(self._interval_s)
        while not self._ended:
            self._asked.clear()
            begun = time.monotonic()
            try:
                self._answer, self.error = self._fetch(self._request), ""
            except PmError as e:
                self._client.close()
                self.error = str(e)
            except Exception as e:  # raised where the command can end
                self._failure, self._ended = e, True
            self._tried = time.monotonic()
            with contextlib.suppress(BlockingIOError):  # full: it is readable already
                os.write(self._write, b".")
            self._asked.wait(max(0.0, begun + self._interval_s - self._tried))


def silence(seconds: float) -> str:
    """What there is to say where a try lasts too long; "" for 0."""
    return f"the service has not answered for {seconds:.0f} s" if seconds else ""
