# SPDX-License-Identifier: Apache-2.0
"""The record of a session: what it says, its published schema and its documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from pm.api.views import encode
from pm.model import Figures, RemoteAddress
from pm.records.record import record_of, record_schema
from pm.sessions.closed_subflows import ClosedSubflow, ClosedSubflows, FigureSource
from pm.sessions.endings import Ended
from pm.sessions.ledger import Ledger
from tests.unit.builders import address, at, policy, session, subflow

ROOT = Path(__file__).parents[3]


def ended(cgroup: str | None = "/p") -> Ended:
    """A session with a subflow that ended earlier and one that ended with it."""
    one = session(
        policy=policy(),
        remotes=(RemoteAddress("10.0.9.2", 0, 2),),
        refused_remotes=(RemoteAddress("127.0.0.1", 5000, 3),),
        announced={"10.0.2.1": 4},
        closed=ClosedSubflows(),
    )
    ledger = Ledger()
    ledger.set_addresses([address("10.0.1.1", 3)])
    early = subflow("10.0.2.1", since=2.0)
    ledger.note(one, early, Figures(100, 10, 1, 500))
    ledger.note(one, one.subflows[0], Figures(200, 20, 2, 600))
    assert one.closed is not None
    one.closed.add(ClosedSubflow(early, at(5.0), "by hand"))
    one.closed.add(ClosedSubflow(one.subflows[0], at(9.0), "the session ended", FigureSource.KERNEL))
    return Ended(session=one, at=at(9.0), reason="closed", fallback=False, cgroup_id=7, cgroup=cgroup)


def test_the_published_schema_is_up_to_date() -> None:
    """`python -m pm.records.write_schema` would change nothing."""
    schema = record_schema()
    Draft202012Validator.check_schema(schema)
    assert json.loads((ROOT / "config/record.schema.json").read_text()) == schema


def test_a_record_satisfies_the_schema() -> None:
    """Its sums are those of its subflows, and its durations those of the monotonic clock."""
    record = record_of(ended())
    checker = Draft202012Validator.FORMAT_CHECKER
    Draft202012Validator(record_schema(), format_checker=checker).validate(json.loads(encode(record)))
    assert record["totals"] == {"bytes_acked": 300, "bytes_received": 30, "retransmits": 3}
    assert record["duration_s"] == 8.0
    assert [(s["duration_s"], s["source"], s["interface"]) for s in record["subflows"]] == [
        (3.0, "last_sample", None),
        (9.0, "kernel", "eth3"),
    ]
    assert record["earlier_subflows"]["count"] == record["earlier_subflows"]["bytes_acked"] == 0
    assert record["announced"] == [{"ip": "10.0.2.1", "port": 0, "address_id": 4}]
    assert [r["ip"] for r in record["refused_addresses"]] == ["127.0.0.1"]


@pytest.mark.parametrize("name", ["/a\nb", "/\udcff", '/"', None])
def test_a_record_is_one_line_of_utf_8(name: str | None) -> None:
    """Whatever a cgroup is called."""
    line = encode(record_of(ended(name)))
    assert b"\n" not in line
    line.decode()


def test_the_documentation_has_every_field() -> None:
    """And no other."""
    text = (ROOT / "docs/records.md").read_text()
    table = text.partition("| field | what |\n|---|---|\n")[2].partition("\n\n")[0]
    told = [word for row in table.splitlines() for word in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(told) == sorted(record_schema()["properties"])
