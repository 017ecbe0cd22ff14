# SPDX-License-Identifier: Apache-2.0
"""Performs a command: a user's mistake is answered with one line, never with a traceback."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper

from pm.cli import browser, local, remote
from pm.cli.completion import completion
from pm.cli.parser import build_parser
from pm.errors import ConfigError, PmError, UnknownPath
from pm.names import printable

HANDLERS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": local.run,
    "check": local.check,
    "restore": local.restore,
    "doctor": local.doctor,
    "report": local.report,
    "schema": local.schema,
    "completion": completion,
    "status": remote.status,
    "sessions": remote.sessions,
    "session": remote.session,
    "policies": remote.policies,
    "addresses": remote.addresses,
    "events": remote.events,
    "top": remote.top,
    "reload": remote.reload,
    "web": browser.web,
    "explain": remote.explain,
    "why": remote.why,
    "subflow add": remote.add_subflow,
    "subflow remove": remote.remove_subflow,
    "subflow backup": remote.set_backup,
}
OF_SERVICE = HANDLERS.keys() - {"run", "check", "restore", "doctor", "report", "schema", "completion"}
# What a full disk or a broken device answers to write(2); only standard output is written.
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
# The status that a shell reports for a process ended by SIGINT.
INTERRUPTED = 130


def perform(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; the parser's epilog lists them."""
    options = argparse.Namespace(command="")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where the locale has no arrow, there is a question mark
    try:
        status = _status(argv, options)
    except PmError as e:
        # Problems in a configuration start with the file's name, as a compiler's do.
        lines = map(str, e.problems) if isinstance(e, ConfigError) else [f"mptcp-pm: {e}"]
        print(*map(printable, lines), sep="\n", file=sys.stderr)
        return e.exit_status
    except KeyboardInterrupt:
        return 0 if _is_endless(options) else INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # the reader is gone (`| head`)
        return 0
    except OSError as e:
        if e.errno not in CANNOT_WRITE or options.command == "run":
            raise
        _drop_output()
        print(f"mptcp-pm: the output cannot be written: {e.strerror}", file=sys.stderr)
        return PmError.exit_status
    return status


def _status(argv: Sequence[str] | None, options: argparse.Namespace) -> int:
    """What the command returns when all that it printed is written; ``options`` are filled in."""
    try:
        build_parser().parse_args(argv, options)
        status = HANDLERS[command_of(options)](options)
    except SystemExit:  # --help, --version, wrong usage
        _flush()
        raise
    except (LookupError, TypeError, AttributeError, ValueError, UnknownPath):
        if command_of(options) in OF_SERVICE:
            remote.require_service(options)  # or else the answer came from something else, or an old one
        raise
    _flush()
    return status


def _is_endless(options: argparse.Namespace) -> bool:
    """Whether Ctrl-C is its usual end."""
    if options.command == "top":
        return not (options.once or options.json)
    return options.command in ("events", "web") or getattr(options, "watch", False)


def _flush() -> None:
    if sys.stdout:  # None where it was closed from the start
        sys.stdout.flush()


def _drop_output() -> None:
    """What is left to write goes nowhere: the interpreter flushes once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command_of(options: argparse.Namespace) -> str:
    """The command's key in ``HANDLERS``: its name, and its action if it has one (``subflow add``)."""
    action = getattr(options, "action", None)
    return f"{options.command} {action}" if action else str(options.command)
