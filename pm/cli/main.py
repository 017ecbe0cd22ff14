# SPDX-License-Identifier: Apache-2.0
"""Entry point of ``mptcp-pm``. It imports little: what is slow to import comes after the signal handler."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; the parser's epilog lists them."""
    if "run" in (sys.argv[1:] if argv is None else argv):
        _obey_sigterm()
    from pm.cli.commands import perform

    return perform(argv)


def _obey_sigterm() -> None:
    """PID 1 of a container ignores signals without a handler: an engine would wait all its grace to stop it.

    The service has its own handler as soon as it has something to undo.
    """

    def end(number: int, frame: object) -> None:
        os._exit(0)

    signal.signal(signal.SIGTERM, end)


if __name__ == "__main__":
    sys.exit(main())
