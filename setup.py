# SPDX-License-Identifier: Apache-2.0
"""Everything else is in pyproject.toml: here the page's libraries are fetched before a package is made."""

import subprocess
from pathlib import Path

from setuptools import setup

subprocess.run(["bash", Path(__file__).with_name("pm") / "web/fetch"], check=True)
setup()
