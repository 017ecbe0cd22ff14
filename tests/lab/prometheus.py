# SPDX-License-Identifier: Apache-2.0
"""Debian's Prometheus, as ``make setup`` has unpacked it: a server in a lab's namespace, and promtool."""

from __future__ import annotations

import json
import subprocess
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from tests.lab.lab import Lab
from tests.lab.netns import inside
from tests.lab.service import ROOT
from tests.lab.waiting import wait_for

PROGRAMS = ROOT / "build/prometheus/usr/bin"
ALERTS = ROOT / "docs/prometheus/alerts.yml"
ADDRESS = "127.0.0.1:9090"  # of the namespace
Json = dict[str, Any]


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    program = PROGRAMS / "promtool"
    assert program.exists(), f"{program} is missing: run `make setup`"
    return subprocess.run(
        [str(program), *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
    )


class Prometheus:
    """Scrapes ``target`` each second, and evaluates the alerting rules; it ends with the lab."""

    def __init__(self, lab: Lab, target: str, ns: str = "client") -> None:
        self._netns = lab.netns(ns)
        directory: Path = lab.directory / "prometheus"
        directory.mkdir()
        job = {"job_name": "mptcp-pm", "static_configs": [{"targets": [target]}]}
        document = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [job],
        }
        config = directory / "prometheus.yml"
        config.write_text(yaml.safe_dump(document))
        with (directory / "log").open("wb") as log:
            self._process = lab.popen(
                [
                    str(PROGRAMS / "prometheus"),
                    f"--config.file={config}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address={ADDRESS}",
                    "--log.level=warn",
                ],
                ns,
                stdout=log,
                stderr=log,
            )
        self._log = directory / "log"
        wait_for(self._ready, "Prometheus that is ready", deadline_s=30)

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer; AssertionError with Prometheus' own words where it refuses."""

        def ask() -> Json:
            try:
                with urlopen(f"http://{ADDRESS}/api/v1/{path}?{urlencode(query)}", timeout=10) as answer:
                    found: Json = json.load(answer)
                    return found
            except HTTPError as error:
                if error.code == HTTPStatus.SERVICE_UNAVAILABLE:  # it starts
                    raise
                raise AssertionError(f"{path} {query}: {error.read().decode()}") from None

        document = inside(self._netns, ask)
        assert document["status"] == "success", document
        return document["data"]

    def query(self, expression: str) -> list[Json]:
        """The samples of an expression, now."""
        found: list[Json] = self.get("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Of the only sample; None where there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"Prometheus ended:\n{self._log.read_text()}")
        try:
            return bool(self.query('up{job="mptcp-pm"} == 1'))
        except OSError:
            return False
