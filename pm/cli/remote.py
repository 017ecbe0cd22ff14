# SPDX-License-Identifier: Apache-2.0
"""Commands that talk to the running service. Only those that print a table load rich."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

from pm import __version__
from pm.cli.client import Client, Target, segment
from pm.cli.why_subject import parse_cgroup, require_cgroup
from pm.errors import ConfigError, PmError
from pm.names import printable
from pm.notation import parse_end

TABLE_LIMIT = 100


def status(options: argparse.Namespace) -> int:
    with _client(options) as client:
        document = client.get("/v1/status")
    if options.json:
        return _print_json(document)
    from pm.cli.tables import show, status_report

    show(status_report(document))
    return 0


def sessions(options: argparse.Namespace) -> int:
    if options.watch:
        return _watch(options)
    limit = options.limit if options.json else (options.limit or TABLE_LIMIT) + 1
    with _client(options) as client:
        found = list(_matching(client, options, limit))
        if not found:
            _check_filters(client, options)
    if options.json:
        return _print_json({"sessions": found})
    limit = options.limit or TABLE_LIMIT
    from pm.cli.tables import console, sessions_list

    out = console()
    out.print(sessions_list(found[:limit], out.width))
    if len(found) > limit:
        print(f"only the first {limit} sessions are shown: use --limit to show more", file=sys.stderr)
    return 0


def _watch(options: argparse.Namespace) -> int:
    from pm.cli.session_watch import watch_in_pipe, watch_on_screen
    from pm.cli.tables import console, is_screen, sessions_list

    out = console()

    def show(found: list[dict[str, Any]]) -> None:
        if options.json:
            _print_json({"sessions": found}, indent=None)
        else:
            out.print(sessions_list(found, out.width), end="\n\n")
            out.file.flush()

    with _client(options) as client:

        def fetch(lines: int) -> list[dict[str, Any]]:
            # A session takes at least one line: more of them than the screen has lines are never visible.
            return list(_matching(client, options, options.limit or lines))

        on_screen = is_screen(out) and not options.json
        # What is wrong from the start ends the command.
        first = fetch(out.height if on_screen else TABLE_LIMIT)
        if not first:
            _check_filters(client, options)
        if on_screen:
            return watch_on_screen(client, out, fetch, first)
        return watch_in_pipe(client, fetch, first, TABLE_LIMIT, show)


def _check_filters(client: Client, options: argparse.Namespace) -> None:
    """Raises PmError if there is no such policy or cgroup: that no session has it would be no answer."""
    name = options.policy
    if options.cgroup and not options.url:
        require_cgroup(parse_cgroup(options.cgroup))
    if name and name not in [policy["name"] for policy in client.get("/v1/policies")["policies"]]:
        raise PmError(f"no policy {name!r}", "`mptcp-pm policies` shows those there are")


def top(options: argparse.Namespace) -> int:
    from pm.cli.top.command import top as show

    return show(options)


def session(options: argparse.Namespace) -> int:
    with _client(options) as client:
        document = client.get(f"/v1/sessions/{segment(options.token)}")
    if options.json:
        return _print_json(document)
    from pm.cli.session_report import session_report
    from pm.cli.tables import show

    show(session_report(document))
    return 0


def policies(options: argparse.Namespace) -> int:
    with _client(options) as client:
        document = client.get("/v1/policies")
    if options.json:
        return _print_json(document)
    from pm.cli.tables import policies_table, show

    show(policies_table(document["policies"]))
    return 0


def addresses(options: argparse.Namespace) -> int:
    with _client(options) as client:
        document = client.get("/v1/addresses")
    if options.json:
        return _print_json(document)
    from pm.cli.tables import addresses_table, show

    show(addresses_table(document["addresses"]))
    return 0


def events(options: argparse.Namespace) -> int:
    """Print a line per event, until Ctrl-C or until the service stops."""
    with _client(options) as client:
        for name, data in client.events(options.type):
            if options.json:
                print(json.dumps({"type": name, **data}, ensure_ascii=False), flush=True)
            elif name == "lost":
                print(f"… {data['count']} events lost: this reader was too slow", flush=True)
            else:
                detail = " ".join(f"{key}={value}" for key, value in data["detail"].items())
                line = f"{data['time']} {data['type']} {data['action']} {data['token'] or ''} {detail}"
                print(printable(" ".join(line.split(" ")).rstrip()), flush=True)
    return 0


def explain(options: argparse.Namespace) -> int:
    remote, port = _destination(options.to)
    cgroup = parse_cgroup(options.cgroup)
    body = {"cgroup": cgroup, "remote": remote} | ({"remote_port": port} if port else {})
    with _client(options) as client:
        document = client.request("POST", "/v1/explain", body)
    if options.json:
        return _print_json(document)
    from pm.cli.preview_report import explanation_report
    from pm.cli.tables import show

    show(explanation_report(document))
    return 0


def why(options: argparse.Namespace) -> int:
    from pm.cli.why_question import ask

    with _client(options) as client:
        document = ask(client, options.subject, local=options.url is None)
    if options.json:
        return _print_json(document)
    from pm.cli.connection_report import connection_report
    from pm.cli.why_report import why_report

    return _say(connection_report(document) if "sockets" in document else why_report(document))


def _destination(text: str) -> tuple[str, int]:
    """Address and port, 0 for none."""
    try:
        address, port = parse_end(text)
    except ValueError as e:
        raise PmError(str(e)) from None
    return str(address), port


def _content(file: str) -> str:
    """Of a file that may be a configuration. Raises ConfigError as the loader does."""
    from pm.config.document import decode, read_opened

    content = read_opened(file)
    decode(file, content)
    return content.decode()  # with all that `decode` takes away: the digest is that of the file


def _dry_run(options: argparse.Namespace) -> int:
    file = "/dev/stdin" if options.dry_run == "-" else options.dry_run
    body = {"content": _content(file)} if file else None
    with _client(options) as client:
        try:
            document = client.request("POST", "/v1/reload/dry-run", body)
        except ConfigError as e:
            raise ConfigError([replace(problem, file=file or problem.file) for problem in e.problems]) from e
    if file:  # the service calls what it was sent by the name of its own file
        document["path"] = file
        document["warnings"] = [warning | {"file": file} for warning in document["warnings"]]
    if options.json:
        return _print_json(document)
    from pm.cli.preview_report import dry_run_report
    from pm.cli.tables import show

    show(dry_run_report(document))
    return 0


def reload(options: argparse.Namespace) -> int:
    if options.dry_run is not None:
        return _dry_run(options)
    with _client(options) as client:
        config = client.request("POST", "/v1/reload")
    if options.json:
        return _print_json(config)
    print(f"{config['path']} ({config['digest'][:12]}) is in force")
    return 0


def add_subflow(options: argparse.Namespace) -> int:
    wanted = {
        "local": options.local,
        "remote": options.remote,
        "remote_port": options.port,
        "backup": options.backup,
    }
    body = {name: value for name, value in wanted.items() if value is not None}
    with _client(options) as client:
        subflow = client.request("POST", f"/v1/sessions/{segment(options.token)}/subflows", body)
    return _print_json(subflow) if options.json else _say(f"{subflow['id']} {subflow['state']}")


def remove_subflow(options: argparse.Namespace) -> int:
    with _client(options) as client:
        client.request("DELETE", _subflow_path(options))
    return _print_json({"id": options.id}) if options.json else _say(f"{options.id} closed")


def set_backup(options: argparse.Namespace) -> int:
    with _client(options) as client:
        subflow = client.request("PATCH", _subflow_path(options), {"backup": options.value == "on"})
    return _print_json(subflow) if options.json else _say(f"{options.id} backup {options.value}")


def _client(options: argparse.Namespace) -> closing[Client]:
    return closing(Client(Target(options.socket, options.url, options.token_file)))


def require_service(options: argparse.Namespace) -> None:
    """Raises PmError where no mptcp-pm answers, or one of another version."""
    with _client(options) as client:
        version = client.status()["version"]
    if version != __version__:
        raise PmError(
            f"the service has version {version}, and this command {__version__}", "restart the service"
        )


def _matching(client: Client, options: argparse.Namespace, limit: int | None) -> Iterator[dict[str, Any]]:
    cgroup = options.cgroup and parse_cgroup(options.cgroup)
    found = client.sessions(limit, policy=options.policy, cgroup=cgroup, state=options.state)
    return islice(found, limit)


def _subflow_path(options: argparse.Namespace) -> str:
    return f"/v1/sessions/{segment(options.token)}/subflows/{segment(options.id)}"


def _print_json(document: Any, indent: int | None = 2) -> int:
    print(json.dumps(document, indent=indent, ensure_ascii=False), flush=True)
    return 0


def _say(text: str) -> int:
    print(text)
    return 0
