# SPDX-License-Identifier: Apache-2.0
"""``make licences``: every dependency, direct or not, with the licence that it declares.

``python -m tests.licences [DEBIAN_PACKAGE]... [--tests DEBIAN_PACKAGE...]``. Of Python, what
``pyproject.toml`` asks for and what that needs, as installed here; the libraries of the page, and what the
tests of it fetch, as the lock files have them; of Debian, the packages that are named, installed or unpacked
in ``build``, without what these need. Those after ``--tests`` are for tests alone: nothing that is shipped
has or needs them. The exit status is 1 if a package of Python or npm declares no licence.
"""

from __future__ import annotations

import argparse
import gzip
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
TESTS_LOCK = PROJECT.parent / "tests/browser/package-lock.json"
UNPACKED = PROJECT.parent / "build"


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


def npm_dependencies() -> list[Dependency]:
    """The libraries of the page, then what the tests of it fetch."""
    return [*_locked("page", PAGE_LOCK), *_locked("tests", TESTS_LOCK)]


def _locked(used_by: str, file: Path) -> list[Dependency]:
    packages = json.loads(file.read_text())["packages"]
    return [
        Dependency(
            used_by, place.rpartition("node_modules/")[2], package["version"], package.get("license", "")
        )
        for place, package in packages.items()
        if place  # else the project itself
    ]


def debian_dependency(name: str, used_by: str = "Debian") -> Dependency:
    """A package's licences are those of all its files, where its copyright file can be read by a program."""
    shown = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Version}", name], capture_output=True, text=True
    )
    documents, version = Path("/usr/share/doc", name), shown.stdout
    if shown.returncode:
        documents = UNPACKED / name / "usr/share/doc" / name
        version = _version_in(documents / "changelog.Debian.gz")
    if not version:
        return Dependency(used_by, name, "not installed", "unknown here")
    file = documents / "copyright"
    text = file.read_text(errors="replace") if file.exists() else ""
    found = sorted(set(re.findall(r"^License:[ \t]*(\S.*?)[ \t]*$", text, re.MULTILINE)))
    return Dependency(used_by, name, version, ", ".join(found) or f"see {file}")


def _version_in(changelog: Path) -> str:
    """That of its first entry, ``NAME (VERSION) …``; "" where there is none."""
    if not changelog.exists():
        return ""
    with gzip.open(changelog, "rt") as file:
        return file.readline().partition("(")[2].partition(")")[0]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("packages", nargs="*")
    parser.add_argument("--tests", nargs="*", default=[])
    named = parser.parse_args(arguments)
    try:
        checked = [*python_dependencies(), *npm_dependencies()]
    except PackageNotFoundError as missing:
        print(f"{missing.name} is not installed: run make setup", file=sys.stderr)
        return 1
    debian = [debian_dependency(name) for name in named.packages]
    debian += [debian_dependency(name, "tests") for name in named.tests]
    for used_by, name, version, licence in [*checked, *debian]:
        print(f"{used_by:12} {name:26} {version:24} {licence or 'DECLARES NONE'}")
    return 0 if all(dependency.licence for dependency in checked) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
