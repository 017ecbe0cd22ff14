# SPDX-License-Identifier: GPL-2.0-only
"""The shape of the package: who may import what, what loads at start, that documents name real files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "pm").rglob("*.py"))

# What decides, and what it decides about.
PURE = (
    "errors",
    "kernel",
    "model",
    "notation",
    "path_managers",
    "policies",
    "sessions/actions",
    "sessions/admission",
    "sessions/dump_merge",
    "sessions/history",
    "sessions/local_addresses",
    "sessions/plan",
    "sessions/session",
    "sessions/session_table",
)


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def part_of(module: Path) -> str:
    return module.relative_to(ROOT / "pm").parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("bcc", "linux"),
        ("pyroute2", "linux"),
        ("aiohttp", "api"),
        ("asyncinotify", "linux"),
        ("rich", "cli"),
        ("structlog", "log"),
    ],
)
def test_libraries_stay_behind_their_part(library: str, home: str) -> None:
    """Kernel libraries are imported in pm/linux only, aiohttp in pm/api only, structlog in pm/log.py only."""
    users = {part_of(m) for m in MODULES if any(n.split(".")[0] == library for n in imports(m))}
    assert users <= {home}


def test_pure_modules_do_no_io() -> None:
    """What decides neither asks the kernel nor the clock."""
    for name in PURE:
        place = ROOT / "pm" / name
        modules = sorted(place.glob("*.py")) or [place.with_suffix(".py")]
        for module in modules:
            assert not {"asyncio", "socket", "time", "subprocess"} & set(imports(module)), module


@pytest.mark.parametrize("fmt", ["json", "text"])
def test_the_service_loads_neither_llvm_nor_the_validator(fmt: str) -> None:
    """bcc, pydantic and YAML live in short-lived children, rich, pygments and pyroute2 in the CLI."""
    code = f"""
import sys
import pm.service
from pm import log
log.configure("info", {fmt!r})
try:
    raise ValueError
except ValueError:
    log.get_logger().exception("failed")
print(*sys.modules)
"""
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "structlog" in loaded
    assert not {"bcc", "pydantic", "yaml", "rich", "pygments", "pyroute2"} & set(loaded)


def test_rich_can_be_loaded_after_the_logger() -> None:
    """It is hidden from structlog only, not from the CLI."""
    code = "from pm import log; log.get_logger(); import rich.console"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_documents_name_files_that_exist() -> None:
    """Relative links and paths of the checkout in documents are not stale."""
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for document in (d for d in documents if d.exists()):
        text = document.read_text()
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text):
            assert (document.parent / target).exists(), f"{document.relative_to(ROOT)}: {target}"
        for path in re.findall(r"`((?:pm|bpf_pm|config|tests|docs|docker|kernel)/[\w./-]*)`", text):
            assert (ROOT / path).exists(), f"{document.relative_to(ROOT)}: {path}"


def test_every_make_target_in_documents_exists() -> None:
    """`make X` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        if document.exists():
            named = re.findall(r"`(?:DEMO_ONCE=1 )?make ([\w-]+)", document.read_text())
            assert set(named) <= targets, document
