# SPDX-License-Identifier: Apache-2.0
"""``why``: asks the service about a session, or about the sockets of a process, a cgroup or an address."""

from __future__ import annotations

from typing import Any

from pm.cli.applications import remedies
from pm.cli.client import Client, segment
from pm.cli.process_sockets import Process, read_process
from pm.cli.why_subject import Kind, Subject, parse_subject, require_cgroup
from pm.errors import PmError

INODES_MAX = 500  # in one question
QUESTIONS_MAX = 20  # each is a walk over all TCP sockets
FOUND_ENOUGH = 100  # sockets
Json = dict[str, Any]


def ask(client: Client, text: str, *, local: bool) -> Json:
    """The document about what ``text`` names. Raises PmError, also where there is no connection.

    ``local``: the service is on this machine, and so are its processes.
    """
    subject = parse_subject(text)
    if subject.kind is Kind.TOKEN:
        found: Json = client.get(f"/v1/sessions/{segment(text)}/why")
        return found
    if subject.kind is Kind.PID:
        return _about_process(client, int(text), local=local)
    document: Json = client.get("/v1/why", **{subject.kind.value: subject.text})
    if not document["sockets"]:
        if local and subject.kind is Kind.CGROUP:
            require_cgroup(subject.text)
        raise _nothing(f"{_where(subject)} has no TCP connection", document)
    return document


def _about_process(client: Client, pid: int, *, local: bool) -> Json:
    if not local:
        raise PmError(
            f"{pid} is a process of this machine, and the service may run on another",
            "leave --url out, or give an address (192.0.2.1:443) or a token (0x8b3e25f1)",
        )
    process = read_process(pid)
    if not process.inodes:
        raise PmError(f"{process} has no socket", "its children may: `ps --ppid` shows them")
    document, asked = _about_inodes(client, process.inodes)
    namespace = document["namespace"]
    if not document["sockets"]:
        if process.namespace != namespace:
            raise PmError(
                f"{process} is in the network namespace net:[{process.namespace}], the service in "
                f"net:[{namespace}]",
                f"ask a service that runs there (`nsenter --net=/proc/{pid}/ns/net`)",
            )
        whole = asked == len(process.inodes)
        which = "none" if whole else f"none of the {asked} with the lowest numbers"
        raise _nothing(f"{process} has {len(process.inodes)} sockets, and {which} is of TCP", document)
    document["process"] = {"pid": pid, "name": process.name}
    document["left_out"] += len(process.inodes) - asked
    for socket in document["sockets"]:
        _advise(socket["findings"], process)
    return document


def _about_inodes(client: Client, inodes: list[int]) -> tuple[Json, int]:
    """One document of as many questions as it takes, and how many inodes were asked about."""
    document: Json = {"sockets": [], "left_out": 0}
    asked = 0
    while asked < min(len(inodes), QUESTIONS_MAX * INODES_MAX) and len(document["sockets"]) < FOUND_ENOUGH:
        some = inodes[asked : asked + INODES_MAX]
        found = client.get("/v1/why", inodes=",".join(map(str, some)))
        found["sockets"] = document["sockets"] + found["sockets"]
        found["left_out"] += document["left_out"]
        document = found
        asked += len(some)
    return document, asked


def _advise(findings: list[Json], process: Process) -> None:
    """The service does not know the program; the remedies are those of this one."""
    for finding in findings:
        if finding["code"] in ("plain_socket", "plain_listener"):
            finding["commands"] = remedies(process, server=finding["code"] == "plain_listener")


def _where(subject: Subject) -> str:
    return f"{subject.kind.value} {subject.text}"


def _nothing(text: str, document: Json) -> PmError:
    seen = f"{document['looked_at']} TCP sockets of net:[{document['namespace']}] were looked at"
    return PmError(f"{text}: {seen}", "`ss -tnae` shows them")
