# SPDX-License-Identifier: Apache-2.0
"""The unit test in docs/path-managers.md, as its readers copy it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


def test_documented_unit_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes, for the example beside it."""
    monkeypatch.syspath_prepend(ROOT / "docs/examples/per_interface")
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/path-managers.md").read_text(), re.M | re.S)
    names: dict[str, Any] = {}
    exec(code, names)
    names["test_second_interface"]()
