# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from rich.cells import cell_len

from pm.cli.top.glyphs import ASCII, BLOCKS, Glyphs, glyphs_for


@pytest.mark.parametrize(
    ("encoding", "environ", "glyphs"),
    [
        ("utf-8", {"LANG": "en_US.UTF-8"}, BLOCKS),
        ("utf-8", {}, BLOCKS),
        ("utf-8", {"LANG": "C.UTF-8"}, BLOCKS),
        ("utf-8", {"LC_ALL": "C", "LANG": "en_US.UTF-8"}, ASCII),
        ("utf-8", {"LC_ALL": "POSIX"}, ASCII),
        ("utf-8", {"LANG": "en_US.UTF-8", "TERM": "linux"}, ASCII),
        ("iso-8859-1", {"LANG": "de_DE"}, ASCII),
    ],
)
def test_blocks_only_where_the_terminal_has_them(
    encoding: str, environ: dict[str, str], glyphs: Glyphs
) -> None:
    """Python writes UTF-8 also where the locale is C."""
    assert glyphs_for(encoding, environ) is glyphs


def test_a_sparkline_has_its_newest_value_right() -> None:
    """What is more than nothing is seen; what is not known is blank."""
    assert BLOCKS.sparkline([0, 1, 50, 100, None], 7) == "  ▁▂▅█ "
    assert BLOCKS.sparkline([9, 9, 0, 0], 2) == "▁▁"
    assert ASCII.sparkline([0, 100], 2) == "_#"
    assert BLOCKS.sparkline([1], 0) == ""


@pytest.mark.parametrize(
    ("share", "bar"), [(0, ""), (1, "████"), (0.5, "██"), (0.3, "█▎"), (7, "████"), (-1, ""), (None, "")]
)
def test_a_bar_has_eighths(share: float | None, bar: str) -> None:
    assert BLOCKS.bar(share, 4) == bar


def test_an_ascii_bar_has_halves() -> None:
    assert [ASCII.bar(share, 4) for share in (0.5, 0.6, 0.65)] == ["##", "##", "##-"]


@pytest.mark.parametrize("text", ["日本語のグループ", "e\u0301te\u0301", "plain text"])
def test_cut_text_is_never_wider(text: str) -> None:
    """Wide characters and combining ones among them."""
    for width in range(12):
        for left in (False, True):
            assert cell_len(BLOCKS.cut(text, width, left=left)) <= width
    assert BLOCKS.cut("/system.slice/a.service", 10, left=True) == "…a.service"


def test_text_commands_a_terminal_nothing() -> None:
    """Not to write from right to left either; where there is ASCII alone, the rest is a question mark."""
    assert BLOCKS.clean("a\x1b[31m\r\n\u202eb") == "a\\x1b[31m\\r\\n\\u202eb"
    assert ASCII.clean("1 – 2 × é…") == "1 - 2 x ?~"
