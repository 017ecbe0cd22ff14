# SPDX-License-Identifier: Apache-2.0
"""The images that the tests run; they are made once, and the engine's cache makes that quick."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.containers import DEADLINE_S, ROOT, TRAFFIC_IMAGE, docker, docker_status, make_image
from tests.lab.netns import NAME


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    """The sidecar's image, and the one of the applications."""
    status, text = docker_status("version")
    assert status == 0, f"{text}no Docker engine answers: run `make test-container`"
    make_image()
    files = ["--file", str(ROOT / "tests/container/Dockerfile"), str(ROOT / "tests")]
    docker("build", "--quiet", "--tag", TRAFFIC_IMAGE, *files, deadline_s=5 * DEADLINE_S)


@pytest.fixture(scope="session", autouse=True)
def no_leftovers(images: None) -> Iterator[None]:
    """No container, network or volume of the tests is left when they end."""
    yield
    for kind in (["ps", "--all"], ["network", "ls"], ["volume", "ls"]):
        assert not docker(*kind, "--quiet", "--filter", f"name={NAME}").split(), kind
