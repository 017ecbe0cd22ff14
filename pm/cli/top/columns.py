# SPDX-License-Identifier: Apache-2.0
"""Rows in columns that fit a width: what matters least is left out of a narrow terminal. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from rich.cells import cell_len
from rich.text import Text

from pm.cli.top.glyphs import Glyphs

Row = TypeVar("Row")
GAP = "  "


class Cell(NamedTuple):
    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """``cell`` gets the row and the width that it may fill, 0 in a pipe.

    ``rank``: columns of the highest rank leave first. ``most``: its greatest width. ``steady``: it takes that
    whatever it shows, since its content changes each second. ``drawn``: a sparkline,
    which fills what is left, and which only a screen shows; ``in_pipe``: what only a pipe shows instead.
    ``lead``: what stays of a row beside its note.
    ``sort``: the order in which it is what counts.
    """

    title: str
    cell: Callable[[Row, int], Cell]
    rank: int
    least: int = 1
    most: int = 200
    right: bool = False
    cut_left: bool = False
    steady: bool = False
    drawn: bool = False
    in_pipe: bool = False
    lead: bool = False
    sort: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """How a table is shown: ``width`` None is a pipe, where nothing is cut, padded or drawn."""

    glyphs: Glyphs
    width: int | None
    sort: str = ""
    selected: int | None = None


def table(
    columns: Sequence[Column[Row]],
    rows: Sequence[Row],
    look: Look,
    note: Callable[[Row], str] = lambda row: "",
) -> list[Text]:
    """A line of titles, and a line per row. On a screen, a note is in place of a row's figures."""
    if look.width is None:
        shown = [column for column in columns if not column.drawn]
        widths = {column: _content(column, rows, look, 0) for column in shown}
    else:
        shown, widths = _fit([column for column in columns if not column.in_pipe], rows, look.width, look)
    titles = [
        Cell(column.title, "bold" if column.sort and column.sort == look.sort else "dim") for column in shown
    ]
    lines = [_line(titles, shown, widths, look)]
    for number, row in enumerate(rows):
        said = "" if look.width is None else look.glyphs.clean(note(row))
        of_row = [column for column in shown if column.lead or not said]
        cells = [column.cell(row, 0 if look.width is None else widths[column]) for column in of_row]
        line = _line([Cell(look.glyphs.clean(cell.text), cell.style) for cell in cells], of_row, widths, look)
        if said and look.width is not None:
            line.pad_right(sum(widths[column] for column in of_row) + len(GAP) * len(of_row) - line.cell_len)
            line.append(look.glyphs.cut(said, max(0, look.width - line.cell_len)), "dim")
        if number == look.selected and look.width is not None:
            line.pad_right(look.width - line.cell_len)
            line.stylize("reverse")
        lines.append(line)
    return lines


def _content(column: Column[Row], rows: Sequence[Row], look: Look, width: int) -> int:
    """The width of the widest cell, the title among them; a cell may fill ``width``."""
    cells = (look.glyphs.clean(column.cell(row, width).text) for row in rows)
    return max(cell_len(column.title), *map(cell_len, cells), 0)


def _fit(
    columns: Sequence[Column[Row]], rows: Sequence[Row], width: int, look: Look
) -> tuple[list[Column[Row]], dict[Column[Row], int]]:
    """The columns that have room, and their widths: the least that each needs, then what it would have."""
    shown = list(columns)
    least = {column: max(column.least, cell_len(column.title)) for column in columns}
    while len(shown) > 1 and sum(least[c] for c in shown) + len(GAP) * (len(shown) - 1) > width:
        shown.remove(max(shown, key=lambda column: column.rank))
    widths = {column: min(least[column], width) for column in shown}
    spare = width - sum(widths.values()) - len(GAP) * (len(shown) - 1)
    for column in sorted(shown, key=lambda column: (column.drawn, column.rank)):
        fills = column.drawn or column.steady
        content = column.most if fills else _content(column, rows, look, column.most)
        more = max(0, min(spare, min(content, column.most) - widths[column]))
        widths[column] += more
        spare -= more
    return shown, widths


def _line(
    cells: Sequence[Cell], columns: Sequence[Column[Row]], widths: dict[Column[Row], int], look: Look
) -> Text:
    line = Text(no_wrap=True, end="")
    for number, (cell, column) in enumerate(zip(cells, columns, strict=True)):
        width = widths[column]
        text = look.glyphs.cut(cell.text, width, left=column.cut_left)
        space = " " * (width - cell_len(text))
        line.append(GAP if number else "")
        line.append(space if column.right else "")
        line.append(text, cell.style)
        line.append("" if column.right or number == len(cells) - 1 else space)
    line.rstrip()
    return line
