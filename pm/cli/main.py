# SPDX-License-Identifier: GPL-2.0-only
"""Entry point of ``mptcp-pm``: one line for a user's mistake, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pm.cli.parser import build_parser
from pm.errors import ConfigError, PmError

# What a shell reports of a process that SIGINT ended.
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is in the parser's epilog."""
    options = build_parser().parse_args(argv)
    try:
        status: int = options.handler(options)
        sys.stdout.flush()
    except PmError as e:
        # Problems of a configuration name their file themselves, as a compiler's do.
        print(e if isinstance(e, ConfigError) else f"mptcp-pm: {e}", file=sys.stderr)
        return e.exit_status
    except KeyboardInterrupt:
        endless = options.command == "events" or getattr(options, "watch", False)
        return 0 if endless else INTERRUPTED
    except BrokenPipeError:
        # Nobody reads any more (`| head`); the interpreter flushes once again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
