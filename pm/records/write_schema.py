# SPDX-License-Identifier: Apache-2.0
"""``python -m pm.records.write_schema`` writes ``config/record.schema.json``."""

from __future__ import annotations

import json
from pathlib import Path

from pm.records.record import record_schema


def _main() -> None:
    path = Path(__file__).parents[2] / "config/record.schema.json"
    path.write_text(json.dumps(record_schema(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    _main()
