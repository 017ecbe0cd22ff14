# SPDX-License-Identifier: Apache-2.0
"""Errors in a third party's file, which is compiled with ours, name that file and its line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from pm.errors import PmError
from pm.linux.bpf import path_manager_maps, tcp_option_maps
from pm.linux.bpf.objects import SOURCES, compile_object
from pm.linux.bpf.third_party import ThirdParty

PLUGIN = """#include "option.h"
static __always_inline enum option_event mine_start(struct option *o)
{
	return nonsense;
}
/* as if there were mine_compose() and mine_receive() */
"""
PATH_MANAGER = """#include "path_manager.h"
static __always_inline void mine_manage(struct bpf_sock_ops *skops, struct claim *claim,
					const struct path_parameters *p)
	nonsense;
"""


@pytest.mark.parametrize(
    ("program", "flags_of", "text"),
    [
        ("options.c", tcp_option_maps.compiler_flags, PLUGIN),
        ("path_manager.c", path_manager_maps.compiler_flags, PATH_MANAGER),
    ],
)
async def test_error_in_a_third_party_file(
    program: str, flags_of: Callable[[list[ThirdParty]], list[str]], text: str, tmp_path: Path
) -> None:
    """The log has file, line and what is wrong."""
    source = tmp_path / "mine.c"
    source.write_text(text)
    flags = await asyncio.to_thread(flags_of, [ThirdParty("mine", str(source), ())])
    with pytest.raises(PmError, match=f"{source} does not compile: line 4: "):
        await compile_object(SOURCES / program, log_file=tmp_path / "log", cflags=flags)
    assert f"{source}:4:" in (tmp_path / "log").read_text()


def test_no_third_parties_no_flags() -> None:
    """The built-in path managers and plugins are named in headers, not in flags."""
    assert tcp_option_maps.compiler_flags([]) == path_manager_maps.compiler_flags([]) == []
