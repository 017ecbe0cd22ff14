# SPDX-License-Identifier: Apache-2.0
"""``python -m pm.config.generate`` writes ``config/schema.json`` and ``docs/configuration.md``."""

from __future__ import annotations

import json
from pathlib import Path

from pm.config.reference import reference_markdown
from pm.config.schema import json_schema
from pm.path_managers.registry import built_in


def _main() -> None:
    repository = Path(__file__).parents[2]
    schema = json_schema(built_in())
    (repository / "config/schema.json").write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    (repository / "docs/configuration.md").write_text(reference_markdown(schema))


if __name__ == "__main__":
    _main()
