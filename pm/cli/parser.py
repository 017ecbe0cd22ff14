# SPDX-License-Identifier: Apache-2.0
"""The command line: its commands, options, examples and exit statuses. The man page is made from it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pm import __version__
from pm.cli.arguments import WEB, delay, positive, subflow_id, token_argument, values, web_options
from pm.cli.top.views_of_top import SORTS, View
from pm.config.model import Api
from pm.log import Format, Level
from pm.model import EventKind
from pm.sessions.session import SessionState

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

ENV_SOCKET = "MPTCP_PM_SOCKET"
ENV_STATE_DIRECTORY = "MPTCP_PM_STATE_DIRECTORY"
ENV_CGROUP_ROOT = "MPTCP_PM_CGROUP_ROOT"
ENV_ALONE_EXIT = "MPTCP_PM_ALONE_EXIT"
STATE_DIRECTORY = "/run/mptcp-pm"
DESCRIPTION = "A per-cgroup path manager for Multipath TCP: the service, and commands to control it."
EXIT_STATUS = {
    0: "success",
    1: "invalid configuration or arguments; or the service refused the request or is not running",
    2: "wrong usage",
    3: "this system cannot run the service: `mptcp-pm doctor` shows how to fix it",
    4: "`run`: the network namespace has lost all interfaces but `lo` (see --alone-exit)",
    os.EX_CONFIG: "`run`: the configuration cannot be used",
    130: "interrupted by Ctrl-C; commands that go on until then end with 0",
}
EXAMPLES = {
    "Find every problem in a configuration": "mptcp-pm check /etc/mptcp-pm.yaml",
    "Also find what does nothing on this machine": "mptcp-pm check --here /etc/mptcp-pm.yaml",
    "Run the service": "mptcp-pm run --config /etc/mptcp-pm.yaml",
    "Watch the sessions of one policy": "mptcp-pm sessions --watch --policy sync",
    "See which interface carries what": "mptcp-pm top",
    "See why a session has its subflows": "mptcp-pm session 0x8b3e25f1",
    "See why a session has no second path": "mptcp-pm why 0x8b3e25f1",
    "See why a program does not use MPTCP": "mptcp-pm why $(pidof -s nginx)",
    "See what a connection would get": "mptcp-pm explain --cgroup /system.slice/a.service --to 192.0.2.1:443",
    "See what a changed configuration would do": "mptcp-pm reload --dry-run new.yaml",
    "Look at it in a browser": "sudo mptcp-pm web",
    "Gather what a bug report needs": "mptcp-pm report",
    "Open a subflow by hand": "mptcp-pm subflow add 0x8b3e25f1 --local 10.0.2.1 --backup",
    "Ask a service on another host": "mptcp-pm --url https://host:8642 --token-file token status --json",
}
# For shtab: how each shell completes an argument that is a file, or a directory.
_FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
_DIRECTORY = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}


def build_parser(environ: Mapping[str, str] = os.environ) -> argparse.ArgumentParser:
    """The parser of ``mptcp-pm``. ``pm.cli.commands`` maps each command to its function."""
    parser = argparse.ArgumentParser(
        prog="mptcp-pm",
        description=DESCRIPTION,
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    _add_connection(parser)
    parser.set_defaults(socket=environ.get(ENV_SOCKET) or Api().unix, url=None, token_file=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    _add_local(commands, environ)
    _add_views(commands)
    _add_report(commands)
    _add_changes(commands)
    return parser


def _epilog() -> str:
    statuses = (f"  {status}  {meaning}" for status, meaning in EXIT_STATUS.items())
    examples = (f"  {command}" for command in EXAMPLES.values())
    return "\n".join(("exit status:", *statuses, "", "examples:", *examples))


def _add_connection(parser: argparse.ArgumentParser, *, hidden: bool = False) -> None:
    """Options that say where the service is: documented before the command, accepted after it too."""
    group = parser.add_argument_group("connection to the running service")
    for option, metavar, text in (
        ("--socket", "PATH", f"Unix socket of the API (default: ${ENV_SOCKET}, or {Api().unix})"),
        ("--url", "URL", "use the API over TCP: http://HOST:PORT or https://HOST:PORT"),
        ("--token-file", "PATH", "file that holds the bearer token for --url"),
    ):
        help_text = argparse.SUPPRESS if hidden else text
        added = group.add_argument(option, metavar=metavar, default=argparse.SUPPRESS, help=help_text)
        if metavar == "PATH":
            added.complete = _FILE  # type: ignore[attr-defined]  # read by shtab


def _add(
    commands: Commands,
    name: str,
    text: str,
    *,
    asks_service: bool = True,
    json: bool = True,
) -> argparse.ArgumentParser:
    description = f"{text[0].upper()}{text[1:]}."
    added = commands.add_parser(name, help=text, description=description, allow_abbrev=False)
    if asks_service:
        _add_connection(added, hidden=True)
    if json:
        added.add_argument("--json", action="store_true", help="print JSON, for programs")
    return added


def _add_local(commands: Commands, environ: Mapping[str, str]) -> None:
    run = _add(commands, "run", "run the service", asks_service=False, json=False)
    config = run.add_argument("--config", metavar="FILE", required=True, help="configuration file (YAML)")
    config.complete = _FILE  # type: ignore[attr-defined]
    _add_cgroup_root(run, environ)
    _add_state_directory(run, environ)
    run.add_argument(
        "--alone-exit",
        metavar="DURATION",
        type=delay,
        default=environ.get(ENV_ALONE_EXIT) or "5s",
        help="in a container whose network namespace has lost all interfaces but `lo`: exit with status 4 "
        f"after this time, or `off` (default: ${ENV_ALONE_EXIT}, or 5s)",
    )
    run.add_argument(
        "--log-level", choices=values(Level), default="info", help="minimum level to log (default: info)"
    )
    run.add_argument(
        "--log-format",
        choices=values(Format),
        default="auto",
        help="auto writes text on a terminal and JSON elsewhere (default: auto)",
    )
    check = _add(
        commands, "check", "print all problems of a configuration, and likely mistakes", asks_service=False
    )
    files = check.add_argument(
        "file", metavar="FILE", nargs="+", help="configuration file (YAML); `-` is standard input"
    )
    files.complete = _FILE  # type: ignore[attr-defined]
    check.add_argument("--strict", action="store_true", help="take warnings for errors")
    check.add_argument(
        "--here",
        action="store_true",
        help="also warn of what does nothing on this machine now, or would make `run` fail",
    )
    restore = _add(
        commands,
        "restore",
        "give the sessions of this network namespace back to the kernel after a service was killed: "
        "sets the path-manager sysctl back and removes its programs; a service that is running is left alone",
        asks_service=False,
    )
    _add_state_directory(restore, environ)
    doctor = _add(
        commands,
        "doctor",
        "show what this system offers, what is missing, and how to fix what is missing",
        asks_service=False,
    )
    doctor.add_argument(
        "--to", metavar="IP", help="look up the routes to this peer (default: to any host of the Internet)"
    )
    _add_cgroup_root(doctor, environ)
    _add(commands, "schema", "print the JSON Schema of the configuration", asks_service=False)
    completion = _add(
        commands, "completion", "print the completion script of a shell", asks_service=False, json=False
    )
    completion.add_argument("shell", choices=("bash", "zsh"), help="which shell")


def _add_state_directory(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    state = parser.add_argument(
        "--state-directory",
        metavar="DIR",
        default=environ.get(ENV_STATE_DIRECTORY) or STATE_DIRECTORY,
        help="where the service keeps what the next start must know "
        f"(default: ${ENV_STATE_DIRECTORY}, or {STATE_DIRECTORY})",
    )
    state.complete = _DIRECTORY  # type: ignore[attr-defined]


def _add_cgroup_root(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    root = parser.add_argument(
        "--cgroup-root",
        metavar="DIR",
        default=environ.get(ENV_CGROUP_ROOT),
        help="where the cgroup2 tree is, with the cgroups of the host "
        f"(default: ${ENV_CGROUP_ROOT}, or where it is mounted)",
    )
    root.complete = _DIRECTORY  # type: ignore[attr-defined]


def _add_views(commands: Commands) -> None:
    _add(commands, "status", "show the state of the service")
    sessions = _add(commands, "sessions", "list sessions with their subflows")
    sessions.add_argument("--watch", action="store_true", help="keep showing them until Ctrl-C")
    sessions.add_argument("--policy", metavar="NAME", help="only sessions of this policy")
    sessions.add_argument("--cgroup", metavar="PATH", help="only sessions of this cgroup and those below it")
    sessions.add_argument("--state", choices=values(SessionState), help="only sessions in this state")
    sessions.add_argument(
        "--limit", metavar="N", type=positive, help="at most N sessions (default: 100, with --json all)"
    )
    session = _add(commands, "session", "show one session with its history")
    session.add_argument("token", metavar="TOKEN", help="token of the session, hexadecimal or decimal")
    top = _add(commands, "top", "show interfaces, policies and sessions live: what carries how much now")
    top.add_argument("--view", choices=values(View), help="what to show first (default: interfaces)")
    sorts = sorted({sort for sorts in SORTS.values() for sort in sorts})
    top.add_argument("--sort", choices=sorts, help="order of this view (default: rate)")
    top.add_argument("--reverse", action="store_true", help="the least first")
    top.add_argument("--filter", metavar="TEXT", help="only what has this text in a name or an address")
    top.add_argument("--once", action="store_true", help="print once, and end: as into a pipe")
    top.add_argument(
        "--limit", metavar="N", type=positive, help="print at most N sessions, up to 1000 (default: 20)"
    )
    _add(commands, "policies", "list policies with their cgroups")
    _add(commands, "addresses", "list local addresses and why each is used or not")
    explain = _add(
        commands, "explain", "show which policy would own a connection, and which subflows it would get"
    )
    explain.add_argument("--cgroup", metavar="PATH", required=True, help="cgroup, below the cgroup2 root")
    explain.add_argument(
        "--to",
        metavar="IP[:PORT]",
        required=True,
        help="where it leads: 192.0.2.1:80, [::1]:80 (default port: 443)",
    )
    why = _add(commands, "why", "show which subflows are missing or why there is no MPTCP, and what helps")
    why.add_argument(
        "subject",
        metavar="SUBJECT",
        help="token of a session (0x8b3e25f1), PID of a process, cgroup (/system.slice/a.service), or the "
        "address of either end of a connection (192.0.2.1:443, [2001:db8::1]:443)",
    )
    events = _add(commands, "events", "print events as they happen, until Ctrl-C")
    events.add_argument("--type", choices=values(EventKind), help="only events of this type")
    web_options(_add(commands, "web", WEB, json=False))


def _add_report(commands: Commands) -> None:
    report = _add(
        commands,
        "report",
        "write an archive for a bug report: configuration, state and network, without secrets",
    )
    output = report.add_argument(
        "--output",
        metavar="FILE",
        help="a new file, or `-` for standard output (default: mptcp-pm-report-HOST-TIME.tar.gz)",
    )
    config = report.add_argument(
        "--config", metavar="FILE", help="configuration file (default: that of the running service)"
    )
    for argument in (output, config):
        argument.complete = _FILE  # type: ignore[attr-defined]


def _add_changes(commands: Commands) -> None:
    reload = _add(commands, "reload", "reload the configuration file")
    trial = reload.add_argument(
        "--dry-run",
        metavar="FILE",
        nargs="?",
        const="",
        help="only show what FILE (- for standard input) would open and close (default: the service's own)",
    )
    trial.complete = _FILE  # type: ignore[attr-defined]
    subflow = commands.add_parser(
        "subflow",
        help="open, close or change a subflow by hand",
        description="Open, close or change a subflow by hand.",
    )
    actions = subflow.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    add = _add(actions, "add", "open a subflow; options that are left out are taken from the initial subflow")
    token_argument(add)
    add.add_argument("--local", metavar="IP", help="local address")
    add.add_argument("--remote", metavar="IP", help="remote address")
    add.add_argument("--port", metavar="N", type=int, help="remote port")
    add.add_argument(
        "--backup",
        action=argparse.BooleanOptionalAction,
        help="set the backup flag, or do not (default: as `addresses.backup` says of the interface)",
    )
    remove = _add(actions, "remove", "close a subflow; the service does not open it again")
    token_argument(remove)
    subflow_id(remove)
    backup = _add(actions, "backup", "set or clear the backup flag of a subflow")
    token_argument(backup)
    subflow_id(backup)
    backup.add_argument("value", choices=("on", "off"), help="on sets the flag, off clears it")
