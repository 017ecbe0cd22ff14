# SPDX-License-Identifier: Apache-2.0
"""``make licences``: every dependency, direct or not, with the licence that it declares.

``python -m tests.licences [DEBIAN_PACKAGE]...``. Of Python, what ``pyproject.toml`` asks for and what that
needs, as installed here; the libraries of the page, as its lock file has them; of Debian, the packages that
are named, without what these need. The exit status is 1 if a package of Python or npm declares no licence.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
PAGE_LOCK = PROJECT.parent / "pm/web/package-lock.json"


class Dependency(NamedTuple):
    used_by: str
    name: str
    version: str
    licence: str  # empty: it declares none


def python_dependencies() -> list[Dependency]:
    """What the service needs, then what only development needs."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    service = installed(project["dependencies"])
    development = installed(project["optional-dependencies"]["dev"])
    return [
        *(describe("service", package) for _, package in sorted(service.items())),
        *(describe("development", development[name]) for name in sorted(development.keys() - service.keys())),
    ]


def installed(requirements: Iterable[str]) -> dict[str, Distribution]:
    """The packages that meet them, and what these need in turn; by name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                found[name] = distribution(name)
                waiting += [(Requirement(text), wanted) for text in found[name].requires or ()]
    return found


def describe(used_by: str, package: Distribution) -> Dependency:
    return Dependency(used_by, package.metadata["Name"], package.version, licence_of(package))


def licence_of(package: Distribution) -> str:
    """Its SPDX expression; in older metadata the name, unless a whole text is there, or the classifiers."""
    fields = package.metadata
    for field in ("License-Expression", "License"):
        for name in fields.get_all(field, []):
            if name and "\n" not in name and name != "UNKNOWN":
                return str(name)
    classifiers: list[str] = fields.get_all("Classifier", [])
    return " / ".join(text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License ::"))


def page_dependencies() -> list[Dependency]:
    """The libraries of the page."""
    packages = json.loads(PAGE_LOCK.read_text())["packages"]
    return [
        Dependency(
            "page", place.rpartition("node_modules/")[2], package["version"], package.get("license", "")
        )
        for place, package in packages.items()
        if place  # else the project itself
    ]


def debian_dependency(name: str) -> Dependency:
    """A package's licences are those of all its files, where its copyright file can be read by a program."""
    shown = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Version}", name], capture_output=True, text=True
    )
    if shown.returncode:
        return Dependency("Debian", name, "not installed", "unknown here")
    file = Path("/usr/share/doc", name, "copyright")
    text = file.read_text(errors="replace") if file.exists() else ""
    found = sorted(set(re.findall(r"^License:[ \t]*(\S.*?)[ \t]*$", text, re.MULTILINE)))
    return Dependency("Debian", name, shown.stdout, ", ".join(found) or f"see {file}")


def main(debian_packages: list[str]) -> int:
    try:
        checked = [*python_dependencies(), *page_dependencies()]
    except PackageNotFoundError as missing:
        print(f"{missing.name} is not installed: run make setup", file=sys.stderr)
        return 1
    for used_by, name, version, licence in [*checked, *map(debian_dependency, debian_packages)]:
        print(f"{used_by:12} {name:26} {version:24} {licence or 'DECLARES NONE'}")
    return 0 if all(dependency.licence for dependency in checked) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
