# SPDX-License-Identifier: GPL-2.0-only
"""Entry point of ``mptcp-pm``: one line for a user's mistake, never a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from pm.cli import local, remote
from pm.cli.completion import completion
from pm.cli.parser import build_parser
from pm.errors import ConfigError, PmError

HANDLERS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": local.run,
    "check": local.check,
    "doctor": local.doctor,
    "schema": local.schema,
    "completion": completion,
    "status": remote.status,
    "sessions": remote.sessions,
    "session": remote.session,
    "policies": remote.policies,
    "addresses": remote.addresses,
    "events": remote.events,
    "reload": remote.reload,
    "subflow add": remote.add_subflow,
    "subflow remove": remote.remove_subflow,
    "subflow backup": remote.set_backup,
}
# What a shell reports of a process that SIGINT ended.
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is in the parser's epilog."""
    options = build_parser().parse_args(argv)
    try:
        status = HANDLERS[command_of(options)](options)
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


def command_of(options: argparse.Namespace) -> str:
    """``subflow add`` for a command with an action, else its name: the key in ``HANDLERS``."""
    action = getattr(options, "action", None)
    return f"{options.command} {action}" if action else str(options.command)


if __name__ == "__main__":
    sys.exit(main())
