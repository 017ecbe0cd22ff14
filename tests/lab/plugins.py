# SPDX-License-Identifier: Apache-2.0
"""Third parties' packages (tests/data/plugins), each installed into a directory of its own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.lab.commands import run
from tests.lab.service import ROOT

PLUGINS = ROOT / "tests/data/plugins"


def install(target: Path, *packages: Path) -> Path:
    """Install packages with pip into ``target``, which goes into the PYTHONPATH of a service."""
    sources = target.with_name(f"{target.name}-sources")
    for package in packages:  # a build writes into its source
        shutil.copytree(package, sources / package.name, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    for source in sources.rglob("*.py.in"):  # what no other tool can read as Python
        source.rename(source.with_suffix(""))
    # Offline: with the setuptools that is there.
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--upgrade")
    run(*pip, "--target", str(target), *(str(sources / package.name) for package in packages))
    shutil.rmtree(sources)
    return target
