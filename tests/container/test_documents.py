# SPDX-License-Identifier: Apache-2.0
"""docs/deploy.md and README.md: what they tell to write into a compose file works as it is written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.lab.containers import IMAGE, ROOT, TRAFFIC_IMAGE, project


def test_compose_file_of_the_document(tmp_path: Path) -> None:
    """Three services, with the shipped folder of policies: the sidecar is ready, and has both networks."""
    (text,) = re.findall(r"^```yaml\n(services:.*?)^```$", (ROOT / "docs/deploy.md").read_text(), re.M | re.S)
    text = text.replace("example/application", TRAFFIC_IMAGE).replace("mptcp-pm:slim", IMAGE)
    (tmp_path / "compose.yaml").write_text(text)
    shutil.copytree(ROOT / "docker/sidecar", tmp_path / "sidecar")
    tmp_path.chmod(0o755)
    with project(str(tmp_path / "compose.yaml"), name="-document") as made:
        made.up()
        usable = {a["interface"] for a in made.ask("addresses")["addresses"] if a["usable"]}
        assert usable == {"eth0", "eth1"}
