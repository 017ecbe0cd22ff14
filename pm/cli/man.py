# SPDX-License-Identifier: Apache-2.0
"""The man page, made from the parser: ``python -m pm.cli.man > docs/mptcp-pm.1``.

This needs argparse-manpage, which only developers install: the page itself is committed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from argparse_manpage.manpage import Manpage

from pm import VERSION_DATE, __version__
from pm.cli.parser import (
    ENV_ALONE_EXIT,
    ENV_CGROUP_ROOT,
    ENV_SOCKET,
    ENV_STATE_DIRECTORY,
    EXAMPLES,
    EXIT_STATUS,
    build_parser,
)

ENVIRONMENT = {
    ENV_SOCKET: "Unix socket of the API, as set by --socket.",
    ENV_STATE_DIRECTORY: "Directory for the state, as set by --state-directory.",
    ENV_ALONE_EXIT: "When to leave a network namespace without interfaces, as set by --alone-exit.",
    ENV_CGROUP_ROOT: "Where the cgroup2 tree is, as set by --cgroup-root.",
}
SUMMARY = "a per-cgroup path manager for Multipath TCP"


def man_page(environ: Mapping[str, str] = os.environ) -> str:
    """The page in man(7) format; it is the same wherever and whenever it is made.

    Its date is the version's, or that of SOURCE_DATE_EPOCH (reproducible-builds.org).
    """
    parser = build_parser({})
    parser.epilog = None  # its content has sections of its own here
    page = Manpage(parser)
    page.description = SUMMARY
    page.manual = "mptcp-pm"
    page.source = f"mptcp-pm {__version__}"
    page.date = _date(environ)
    statuses = (f".TP\n.B {status}\n{_escape(meaning)}" for status, meaning in EXIT_STATUS.items())
    page.add_section("exit status", ">", "\n".join(statuses))
    variables = (f".TP\n.B {name}\n{_escape(text)}" for name, text in ENVIRONMENT.items())
    page.add_section("environment", ">", "\n".join(variables))
    examples = (f".TP\n{what}\n.B {_escape(command)}" for what, command in EXAMPLES.items())
    page.add_section("examples", ">", "\n".join(examples))
    page.add_section("see also", ">", ".BR mptcpize (8),\n.BR ip\\-mptcp (8),\n.BR cgroups (7)")
    # The usage was wrapped for this terminal; the reader's terminal wraps it again.
    return re.sub(
        r"^usage: (.+?)\n\n", lambda m: " ".join(m[1].split()) + "\n\n", str(page), flags=re.M | re.S
    )


def _date(environ: Mapping[str, str]) -> str:
    epoch = environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(epoch), UTC).date().isoformat() if epoch else VERSION_DATE


def _escape(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")


if __name__ == "__main__":
    sys.stdout.write(man_page())
