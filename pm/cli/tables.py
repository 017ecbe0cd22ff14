# SPDX-License-Identifier: Apache-2.0
"""The service's JSON as tables for people. Imported only to print one, since rich is slow to load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from pm.errors import Problem
from pm.names import printable

Json = Mapping[str, Any]

NARROW = 60  # columns
PIPE = 100_000  # a cgroup's path may have 4096 characters, and a policy many of them
SELECTIONS = {
    "cgroup": "by cgroup",
    "namespace": "by network namespace: the policy for / owns every session",
}
FAILED_LOAD = "FAILED: the last good configuration stays in force"


class OutputConsole(Console):
    def on_broken_pipe(self) -> None:
        """The reader is gone: `perform` knows what that means. Rich would end the process with status 1."""
        raise BrokenPipeError


def console() -> Console:
    """A console on standard output. Away from a terminal it is so wide that no line is broken."""
    made = OutputConsole(highlight=False, soft_wrap=False)
    return made if made.file.isatty() else OutputConsole(highlight=False, width=PIPE)


def is_screen(console: Console) -> bool:
    """Whether it shows more than lines. With FORCE_COLOR, rich takes a pipe for a terminal too."""
    return console.file.isatty() and not console.is_dumb_terminal


def show(report: RenderableType) -> None:
    """Print a report without blanks at the ends of lines. What must not be broken the terminal breaks."""
    out, segments = console(), list[Segment]()
    for line in Segment.split_lines(out.render(report)):
        while line and not line[-1].text.rstrip():
            line.pop()
        if line:
            last = line.pop()
            line.append(Segment(last.text.rstrip(), last.style))
        segments += [*line, Segment.line()]
    out.print(Segments(segments), end="", soft_wrap=True)


def bytes_text(count: int | None) -> str:
    """``1.5 MiB``, or ``–`` if the number is not known."""
    if count is None:
        return "–"
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def duration_text(seconds: float | None) -> str:
    """``1.5 ms``, ``12 s``, ``3 h 5 min``, or ``–`` if the duration is not known."""
    if seconds is None:
        return "–"
    if seconds < 0.9995:  # what rounds to a second is one
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def endpoint(value: Json) -> str:
    ip = f"[{value['ip']}]" if ":" in value["ip"] else value["ip"]
    return f"{ip}:{value['port'] or '?'}"


def pair_text(pair: Json) -> str:
    return f"{pair['local']} × {pair['remote']}"


def sessions_list(sessions: Sequence[Json], width: int) -> Text:
    """One line per session and, below it, one per subflow, or two where that is too wide."""
    rows = [[_subflow_cells(subflow) for subflow in session["subflows"]] for session in sessions]
    header = ["SUBFLOW", "RTT", "SENT", "RECEIVED", "REASON"]
    widths = [max(map(len, column)) for column in zip(header, *chain.from_iterable(rows), strict=True)]
    lines = _columns if sum(widths) + 2 * len(widths) <= width else _two_lines
    text = Text()
    text.append(f"SESSION, POLICY, CGROUP, STATE, AGE\n{lines(header, widths)}", "dim")
    for session, subflows in zip(sessions, rows, strict=True):
        policy = session["policy"] or "no policy"
        facts = [
            policy,
            printable(session["cgroup"] or "–"),
            session["state"],
            duration_text(session["age_s"]),
        ]
        text.append(f"\n{session['token']}", "bold").append(f"  {'  '.join(facts)}")
        for cells in subflows:
            text.append("\n" + lines(cells, widths))
    return text


def _two_lines(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *figures, reason = cells
    words = "  ".join(map(str.rjust, figures, widths[1:]))
    # The name has the pair of addresses that a reason may name.
    return f"  {name}  {reason.partition(': ')[0]}\n    {words}"


def _columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Join cells: figures are aligned right, the rest left."""
    padded = [
        cell.rjust(width) if 0 < i < 4 else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"  {'  '.join(padded)}".rstrip()


def _subflow_cells(subflow: Json) -> list[str]:
    marks = [
        mark for mark, on in (("backup", subflow["backup"]), ("opening", subflow["state"] == "opening")) if on
    ]
    name = f"{endpoint(subflow['local'])} → {endpoint(subflow['remote'])}"
    return [
        f"{name} ({', '.join(marks)})" if marks else name,
        duration_text(subflow["rtt_s"]),
        bytes_text(subflow["bytes_sent"]),
        bytes_text(subflow["bytes_received"]),
        printable(subflow["reason"]),
    ]


def unroutable_table(pairs: Sequence[Json]) -> Table:
    table = new_table("NO ROUTE", "REASON")
    for pair in pairs:
        add_row(table, pair_text(pair), pair["reason"])
    return table


def policies_table(policies: Sequence[Json]) -> Table:
    table = new_table("POLICY", "CGROUP", "PATH MANAGER", "SESSIONS", "ATTACHED TO")
    for policy in policies:
        manager = policy["path_manager"]
        parameters = ", ".join(f"{name}: {value}" for name, value in manager["parameters"].items())
        text = f"{manager['name']} ({parameters})" if parameters else manager["name"]
        cgroups = policy["cgroups"] or ["no cgroup"]
        add_row(table, policy["name"], policy["cgroup"], text, str(policy["sessions"]), cgroups)
    return table


def addresses_table(addresses: Sequence[Json]) -> Table:
    table = new_table("ADDRESS", "INTERFACE", "USED", "BACKUP", "WHY")
    for address in addresses:
        add_row(
            table,
            f"{address['ip']}/{address['prefix_len']}",
            address["interface"],
            "yes" if address["usable"] else "no",
            "backup" if address["backup"] else "",
            address["why"],
        )
    return table


def status_report(status: Json) -> RenderableType:
    config, last = status["config"], status["config"]["last_reload"]
    facts = facts_grid(
        ("version", status["version"]),
        ("pid", str(status["pid"])),
        ("state", _state(status)),
        ("uptime", duration_text(status["uptime_s"])),
        ("datapath", status["datapath"]),
        ("selection", SELECTIONS[status["selection"]]),
        ("kernel", status["kernel"]["release"]),
        ("configuration", f"{config['path']} ({config['digest'][:12]})"),
        (
            "last load",
            f"{last['time']} {'ok' if last['ok'] else FAILED_LOAD}",
        ),
        ("sessions", str(status["sessions"])),
        *((name.replace("_", " "), str(count)) for name, count in sorted(status["counters"].items())),
    )
    problems = [str(Problem(**problem)) for problem in last["problems"]]
    bad = [check for check in status["kernel"]["checks"] if not check["ok"]]
    parts: list[RenderableType] = [facts]
    if config["warnings"]:
        parts += ["", *(Text(str(Problem(**warning)), "yellow") for warning in config["warnings"])]
    parts += [Text(reason, "red") for reason in status["reasons"]]
    if problems:
        parts += ["", *(Text(problem, "red") for problem in problems)]
    if bad:
        parts += ["", checks_table(bad)]
    return Group(*parts)


def checks_table(checks: Sequence[Json]) -> Table:
    table = new_table("CHECK", "", "FOUND", "REMEDY")
    for check in checks:
        mark = (
            Text("ok", "green")
            if check["ok"]
            else Text("missing", "red")
            if check["required"]
            else Text("optional", "yellow")
        )
        table.add_row(escape(check["name"]), mark, escape(check["found"]), escape(check["remedy"]))
    return table


class ReportTable(Table):
    """A table, or on a narrow screen a list: columns of a few letters each cannot be read."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width >= NARROW:
            yield from super().__rich_console__(console, options)
            return
        for row in zip(*(column.cells for column in self.columns), strict=True):
            for column, cell in zip(self.columns, row, strict=True):
                text = Text.from_markup(cell) if isinstance(cell, str) else cell
                if text:
                    yield Text.assemble((f"{column.header}  " if column.header else "", "dim"), text)
            yield ""


def new_table(*columns: str) -> Table:
    table = ReportTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def add_row(table: Table, *cells: str | Sequence[str]) -> None:
    """A cell is one line, or a list of lines."""
    lines = ([cell] if isinstance(cell, str) else cell for cell in cells)
    # Text from outside is never markup.
    table.add_row(*("\n".join(escape(printable(line)) for line in of_cell) for of_cell in lines))


def facts_grid(*facts: tuple[str, str]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(Text(name, "bold"), escape(printable(value)))
    return grid


def _state(status: Json) -> str:
    if status["ready"]:
        return "ready"
    return "not ready: others changed what the service set" if status["reasons"] else "starting"


def number_text(value: int | None) -> str:
    return "–" if value is None else str(value)
