# SPDX-License-Identifier: Apache-2.0
"""``mptcp-pm report``: one archive with what a bug report needs, and without secrets."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import socket
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pm.cli import report_parts
from pm.cli.client import Client, Target
from pm.cli.report_parts import CUT, PART_MAX
from pm.cli.secrets import Secrets
from pm.errors import ConfigError, PmError

TOTAL_MAX = 16 << 20
SESSIONS_MAX = 200
DETAILS_MAX = 20
PRIVACY = "It has addresses and names of this host and its peers: look at it before you give it away."
_TOKEN = re.compile("0x[0-9a-f]{8}")


class Report:
    """The parts of a report by name, and what is missing in it, with the reason."""

    def __init__(self) -> None:
        self.secrets = Secrets()
        self.parts: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self._size = 0

    def add(self, name: str, make: Callable[[], Any]) -> Any:
        """Add what ``make`` returns, text or JSON; what it raises as PmError is why the part is missing."""
        try:
            made = make()
        except PmError as e:
            self.left_out[name] = " ".join(self.secrets.scrub(str(e)).split())
            return None
        text = made if isinstance(made, str) else json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        text = self.secrets.scrub(text)
        if len(text) > PART_MAX:
            self.left_out[name] = f"what is beyond {PART_MAX} characters"
            text = text[:PART_MAX] + CUT
        if self._size + len(text) > TOTAL_MAX:
            self.left_out[name] = "the report is full"
            return made
        self._size += len(text)
        self.parts[name] = text
        return made

    def archive(self) -> bytes:
        """A tar.gz; who reads it needs no directory of its own."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as tar:
            for name, text in {"README.txt": self.contents(), **self.parts}.items():
                data = text.encode(errors="replace")
                member = tarfile.TarInfo(f"mptcp-pm-report/{name}")
                member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
                tar.addfile(member, io.BytesIO(data))
        return content.getvalue()

    def contents(self) -> str:
        """What is in it and what is not, for people."""
        lines = ["This report has:", *(f"  {name}" for name in self.parts)]
        lines += ["Left out:", *(f"  {name}: {why}" for name, why in self.left_out.items())]
        lines.append("  bearer tokens, private keys and contents of credential files: always")
        return "\n".join([*lines, PRIVACY, ""])


def write_report(options: argparse.Namespace) -> int:
    """Write the archive, and say what is in it."""
    made = collect(options)
    target = options.output or _default_name()
    content = made.archive()
    if target == "-":
        if sys.stdout is None:
            raise PmError("standard output is closed", "name a file with --output")
        if sys.stdout.isatty():
            raise PmError("an archive is not for a terminal", "write `> FILE`, or name one with --output")
        sys.stdout.buffer.write(content)
        print(made.contents(), end="", file=sys.stderr)
        return 0
    _write(target, content)
    if options.json:
        found = {"file": target, "bytes": len(content), "parts": list(made.parts), "left_out": made.left_out}
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print(f"{target}: {len(content)} bytes, readable by you alone (mode 0600)\n{made.contents()}", end="")
    return 0


def collect(options: argparse.Namespace) -> Report:
    """All parts. A service that does not run, or a tool that is not installed, leaves some of them out."""
    made = Report()
    if options.token_file:
        made.secrets.learn_file(options.token_file)
    with closing(Client(Target(options.socket, options.url, options.token_file))) as client:
        # Before all else: what in the configuration is secret is taken out of the rest.
        status = _status(client)
        path = options.config
        if not (path or options.url or isinstance(status, PmError)):
            path = status["config"]["path"]
        made.add("configuration.json", lambda: _configuration(path, made.secrets))
        made.add("versions.txt", report_parts.versions)
        made.add("doctor.json", _doctor)
        made.add("status.json", lambda: _raised(status))
        if isinstance(status, PmError):
            made.left_out["policies, addresses, metrics, sessions"] = "as status.json"
        else:
            _add_service(made, client)
    made.add("sysctls.txt", report_parts.sysctls)
    made.add("counters.txt", report_parts.counters)
    for name, command in report_parts.COMMANDS.items():
        made.add(name, partial(report_parts.output_of, command))
    made.left_out["log"] = "`journalctl --unit mptcp-pm` or the container engine has it"
    return made


def _status(client: Client) -> Any:
    """The document, or the error."""
    try:
        return client.status()
    except PmError as e:
        return e


def _raised(found: Any) -> Any:
    if isinstance(found, PmError):
        raise found
    return found


def _configuration(path: str | None, secrets: Secrets) -> Any:
    """The file as data: comments may have secrets, and nobody can tell."""
    from pm.config.document import parse, read_bytes
    from pm.config.schema import json_schema
    from pm.config.suspicions import suspicions
    from pm.config.validate import validate

    if path is None:
        raise PmError("no service of this host tells where it is", "name it with --config")
    document = parse(path, read_bytes(path))
    data = secrets.without(document.data, set(_names(json_schema())))
    api = data.get("api") if isinstance(data, dict) else None
    tcp = api.get("tcp") if isinstance(api, dict) else None
    for file in _files(tcp):
        secrets.learn_file(file)
    try:
        config = validate(document)
    except ConfigError as e:
        problems = e.problems
    else:
        problems = suspicions(document, config)
    return {"path": path, "configuration": data, "problems": [asdict(problem) for problem in problems]}


def _names(schema: Any) -> Iterator[str]:
    """Every key of a configuration."""
    if isinstance(schema, dict):
        properties = schema.get("properties")
        yield from properties if isinstance(properties, dict) else ()
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from _names(part)


def _files(value: Any) -> list[str]:
    """Every path in the settings of TCP: the files of tokens and keys, whatever their key is called."""
    if isinstance(value, dict | list):
        below = value.values() if isinstance(value, dict) else value
        return [path for item in below for path in _files(item)]
    return [value] if isinstance(value, str) and value.startswith("/") else []


def _doctor() -> Any:
    from pm.cli.doctor import examine

    return [asdict(check) for check in examine()]


def _add_service(made: Report, client: Client) -> None:
    for name in ("policies", "addresses"):
        made.add(f"{name}.json", partial(client.get, f"/v1/{name}"))
    made.add("metrics.txt", partial(client.text, "/metrics"))
    sessions = made.add("sessions.json", lambda: _sessions(client))
    if sessions is None:
        return
    if len(sessions) > SESSIONS_MAX:
        made.left_out["sessions"] = f"all after the first {SESSIONS_MAX}"
    # Those that have trouble come first; their history says what happened.
    sessions.sort(key=lambda session: not session["failed"] and not session["unroutable"])
    for session in sessions[:DETAILS_MAX]:
        token = session["token"]
        made.add(f"sessions/{token}.json", partial(client.get, f"/v1/sessions/{token}"))
        made.add(f"sessions/{token}-why.json", partial(client.get, f"/v1/sessions/{token}/why"))
    if len(sessions) > DETAILS_MAX:
        made.left_out["sessions/*"] = f"the history of all but {DETAILS_MAX}"


def _sessions(client: Client) -> list[Any]:
    """Their tokens become names of files: they have to be tokens. Raises PmError."""
    try:
        found = list(client.sessions(SESSIONS_MAX + 1))
        if all(_TOKEN.fullmatch(s["token"]) and {"failed", "unroutable"} <= s.keys() for s in found):
            return found
    except (LookupError, TypeError, AttributeError):
        pass
    raise client.not_ours()


def _default_name() -> str:
    return f"mptcp-pm-report-{socket.gethostname()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar.gz"


def _write(target: str, content: bytes) -> None:
    """A new file that nobody else can read. Raises PmError, and leaves nothing half written."""
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise PmError(f"{target} exists already", "name another file with --output, or remove it") from None
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else e
        raise PmError(f"cannot write {target}: {reason}", "name another file with --output") from e
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
    except OSError as e:
        Path(target).unlink(missing_ok=True)
        raise PmError(f"cannot write {target}: {e.strerror}", "name another file with --output") from e
