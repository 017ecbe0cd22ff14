# SPDX-License-Identifier: Apache-2.0
"""The shape of the package: who may import what, what loads at start, that documents name real files."""

from __future__ import annotations

import ast
import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pm.api.page import LIBRARIES
from tests.licences import debian_dependency, npm_dependencies, python_dependencies

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "pm").rglob("*.py"))
# The folders of the checkout, less what make and the tools put there.
FOLDERS = [
    place
    for place in sorted(ROOT.iterdir())
    if place.is_dir() and (place.name == ".ci" or not re.match(r"\.|build$|.*\.egg-info$", place.name))
]
FILES = [*ROOT.glob("*.md"), *(file for folder in FOLDERS for file in folder.rglob("*.*"))]
DOCUMENTS = [file.relative_to(ROOT) for file in FILES if file.suffix == ".md"]
SOURCES = [str(file) for file in FILES if file.suffix in (".py", ".c", ".h")]
# And folders that do not exist yet: documents must not name them.
NAMES = {folder.name for folder in FOLDERS} | {"docker", "packaging"}
PATH = rf"(?<![\w/.~-])(?:{'|'.join(map(re.escape, sorted(NAMES)))})/[\w./*-]*"
RECORDS = sorted((ROOT / "docs/decisions").iterdir())
KERNEL_FOLDERS = ("net/", "include/uapi/", "include/linux/", "tools/")  # sources of Linux

# What decides, and what it decides about.
PURE = (
    "errors",
    "kernel",
    "kernel_protocols",
    "model",
    "no_session",
    "notation",
    "path_managers",
    "policies",
    "sessions/actions",
    "sessions/admission",
    "sessions/backoff",
    "sessions/closing_reasons",
    "sessions/dump_merge",
    "sessions/evidence",
    "sessions/history",
    "sessions/local_addresses",
    "sessions/missing",
    "sessions/plan",
    "sessions/session",
    "sessions/session_table",
    "sessions/why",
    "sessions/why_pairs",
    "sessions/why_paths",
    "sessions/why_session",
)


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def part_of(module: Path) -> str:
    return module.relative_to(ROOT / "pm").parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("bcc", "linux"),
        ("pyroute2", "linux"),
        ("aiohttp", "api"),
        ("asyncinotify", "linux"),
        ("rich", "cli"),
        ("structlog", "log"),
    ],
)
def test_libraries_stay_behind_their_part(library: str, home: str) -> None:
    """Kernel libraries are imported in pm/linux only, aiohttp in pm/api only, structlog in pm/log.py only."""
    users = {part_of(m) for m in MODULES if any(n.split(".")[0] == library for n in imports(m))}
    assert users <= {home}


def test_pure_modules_do_no_io() -> None:
    """What decides neither asks the kernel nor the clock."""
    for name in PURE:
        place = ROOT / "pm" / name
        modules = sorted(place.glob("*.py")) or [place.with_suffix(".py")]
        for module in modules:
            assert not {"asyncio", "socket", "time", "subprocess"} & set(imports(module)), module


@pytest.mark.parametrize("fmt", ["json", "text"])
def test_the_service_loads_neither_llvm_nor_the_validator(fmt: str) -> None:
    """bcc, pydantic and YAML live in short-lived children, rich and pygments in the CLI, pyroute2 in the
    doctor (8 MiB).
    """
    code = f"""
import sys
import pm.service
from pm import log
log.configure("info", {fmt!r})
try:
    raise ValueError
except ValueError:
    log.get_logger().exception("failed")
print(*sys.modules)
"""
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "structlog" in loaded
    assert not {"bcc", "pydantic", "pyroute2", "yaml", "rich", "pygments"} & set(loaded)


def test_rich_can_be_loaded_after_the_logger() -> None:
    """It is hidden from structlog only, not from the CLI."""
    code = "from pm import log; log.get_logger(); import rich.console"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_relative_links_lead_to_files(document: Path) -> None:
    """What a link of a document leads to is there."""
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text):
        assert (ROOT / document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_paths_in_documents_exist(document: Path) -> None:
    """Paths of the checkout are not stale, wherever they stand: in text, tables and blocks of code."""
    text = (ROOT / document).read_text()
    for path in re.findall(PATH, text):
        assert list(ROOT.glob(path.rstrip(".,:"))), path
    for path in re.findall(r"`(\.\./[\w./-]+)`", text):
        assert (ROOT / document.parent / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_sources_in_documents_exist(document: Path) -> None:
    """A source file that is named by the end of its path only, such as `none.c`, is there."""
    for name in re.findall(r"`((?:[a-z_]+/)*\w+\.(?:py|[ch]))`", (ROOT / document).read_text()):
        if not name.startswith(KERNEL_FOLDERS):
            assert any(file.endswith(f"/{name}") for file in SOURCES), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_modules_in_documents_exist(document: Path) -> None:
    """`pm.x.y` is a module, or a name in one."""
    for name in re.findall(r"(?<![\w/.-])(?:pm|tests)(?:\.\w+)+", (ROOT / document).read_text()):
        parent, _, attribute = name.rpartition(".")
        assert module_exists(name) or hasattr(import_module(parent), attribute), name


def module_exists(name: str) -> bool:
    file = ROOT / name.replace(".", "/")
    return file.with_suffix(".py").exists() or (file / "__init__.py").exists()


def test_no_two_modules_have_one_name() -> None:
    """A file's name says which file it is; only packages' own files and the models of two parts share one."""
    names = Counter(module.name for module in MODULES)
    shared = {name for name, count in names.items() if count > 1}
    assert shared <= {"__init__.py", "model.py"}


def test_every_make_target_in_documents_exists() -> None:
    """`make X` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"`(?:DEMO_ONCE=1 )?make ([a-z][\w-]*)", (ROOT / document).read_text())
        assert set(named) <= targets, document


def test_every_dependency_declares_a_licence() -> None:
    """`make licences` knows what pyproject.toml and the page ask for, what that needs, a licence of each."""
    dependencies = [*python_dependencies(), *npm_dependencies()]
    used_by = {dependency.name.lower(): dependency.used_by for dependency in dependencies}
    assert used_by["aiohttp"] == used_by["multidict"] == "service"
    assert used_by["preact"] == used_by["uplot"] == "page"
    assert used_by["pytest"] == used_by["pluggy"] == "development"
    assert used_by["axe-core"] == "tests"
    assert [dependency.name for dependency in dependencies if not dependency.licence] == []


def test_licences_have_what_only_tests_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus is unpacked beside the checkout, and no package of this machine."""
    documents = tmp_path / "no-such-package/usr/share/doc/no-such-package"
    documents.mkdir(parents=True)
    (documents / "copyright").write_text("Files: *\nLicense: Apache-2.0\n")
    with gzip.open(documents / "changelog.Debian.gz", "wt") as file:
        file.write("no-such-package (1.2+ds-3) bookworm; urgency=low\n")
    monkeypatch.setattr("tests.licences.UNPACKED", tmp_path)
    found = debian_dependency("no-such-package", "tests")
    assert found == ("tests", "no-such-package", "1.2+ds-3", "Apache-2.0")
    makefile = (ROOT / "Makefile").read_text()
    assert "--tests prometheus $(BROWSER_PACKAGES)" in makefile


def locked(name: str) -> dict[str, str]:
    """The versions in a file of requirements; each package has hashes."""
    text = (ROOT / name).read_text()
    pins = re.findall(r"^(\S+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert len(pins) == text.count("==")
    return dict(pins)


def test_locks_have_what_is_declared() -> None:
    """`make lock` was run after a change of pyproject.toml; image and development have the same versions."""
    file = tomllib.loads((ROOT / "pyproject.toml").read_text())
    service, development = file["project"]["dependencies"], file["project"]["optional-dependencies"]["dev"]
    build = file["build-system"]["requires"]
    everything = locked("requirements-dev.txt")
    for name, declared in (
        ("requirements-dev.txt", [*service, *development, *build]),
        ("docker/requirements.txt", service),
        ("docker/requirements-build.txt", build),
    ):
        pins = locked(name)
        assert pins.items() <= everything.items()
        for requirement in map(Requirement, declared):
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier, name


IN_USER_SPACE = ("tests/bench/second_path.c", "tests/bench/small_messages.c")


def licence_of(file: Path) -> str:
    """The licence of a source (docs/decisions/0029-licences.md)."""
    name = str(file.relative_to(ROOT))
    bpf = file.suffix in (".c", ".h") and name not in IN_USER_SPACE
    return "GPL-2.0-only" if bpf or name.startswith(("bpf_pm/", "kernel/")) else "Apache-2.0"


def test_every_source_has_the_licence_of_its_place() -> None:
    """Its SPDX line comes first, or after the name of an interpreter."""
    files = [ROOT / "Makefile", *(f for folder in FOLDERS for f in folder.rglob("*") if f.is_file())]
    for file in files:
        lines = file.read_bytes().split(b"\n", 2)[:2]
        found = re.findall(rb"-License-Identifier: (\S+)", b"\n".join(lines))
        if found or file.suffix in (".py", ".c", ".h") or lines[0].startswith(b"#!"):
            assert found == [licence_of(file).encode()], file


def test_decision_records_have_one_form() -> None:
    """They are numbered from 1 without holes, and each has its number, a title and three sections."""
    assert [file.name[:5] for file in RECORDS] == [f"{number:04}-" for number in range(1, len(RECORDS) + 1)]
    for number, file in enumerate(RECORDS, 1):
        first, *lines = file.read_text().splitlines()
        assert re.fullmatch(rf"# {number}\. \S.*", first), file
        sections = [line for line in lines if line.startswith("#")]
        assert sections == ["## Context", "## Decision", "## Consequences"], file


def test_decisions_that_are_named_exist() -> None:
    """In documents and in comments, a record's file is there, and a number that links to it is its own."""
    names = {file.name for file in RECORDS}
    for file in {*SOURCES, *(str(ROOT / document) for document in DOCUMENTS)}:
        text = Path(file).read_text()
        for name in re.findall(r"(?<![\w-])\d{4}-[a-z][a-z0-9-]*\.md", text):
            assert name in names, f"{file}: {name}"
        for number, linked in re.findall(r"\b[Dd]ecision[\s*#]+(\d+)(?:\]\([\w./]*?(\d{4})-)?", text):
            assert 1 <= int(number) <= len(RECORDS), f"{file}: decision {number}"
            assert not linked or int(linked) == int(number), f"{file}: decision {number} links to {linked}"


def test_the_source_distribution_has_the_whole_project(tmp_path: Path) -> None:
    """Documents, tests, the kernel's patches and licences are in it; a wheel made of it has the page."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no checkout")
    files = [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    source = tmp_path / "source"
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "pm/web/vendor", source / "pm/web/vendor")  # so that nothing is fetched
    archive = build("sdist", source, tmp_path)
    with tarfile.open(archive) as opened:
        there = {name.partition("/")[2] for name in opened.getnames()}
        opened.extractall(tmp_path)
    assert sorted(set(files) - there) == []
    wheel = build("wheel", tmp_path / archive.name.removesuffix(".tar.gz"), tmp_path)
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    assert {f"pm/web/vendor/{name}" for name in (*LIBRARIES, "package-lock.json")} <= set(names)
    assert "pm/web/index.html" in names
    assert {"pm/web/fetch", "pm/web/package.json"} & set(names) == set()
    licences = {name.rpartition("/")[2] for name in names if ".dist-info/licenses/" in name}
    libraries = {"htm.LICENSE", "preact.LICENSE", "uplot.LICENSE"}
    assert licences == libraries | {"Apache-2.0.txt", "GPL-2.0-only.txt"}


def build(what: str, source: Path, target: Path) -> Path:
    """A distribution, without npm and a network."""
    code = f"import sys; from setuptools.build_meta import build_{what}; print(build_{what}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, target],
        cwd=source,
        env={**os.environ, "npm_config_offline": "true"},
        check=True,
        capture_output=True,
        text=True,
    )
    return target / done.stdout.splitlines()[-1]


COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
HELPER = re.compile(r"\bbpf_(?:open|close)_subflow\(")
CONTEXT = re.compile(r"skops->|\w*FIELD\(|\bBPF_\w+|\bbpf_\w+\(")


@pytest.mark.parametrize("source", sorted((ROOT / "bpf_pm/path_managers").glob("*.c")), ids=lambda s: s.name)
def test_path_managers_do_not_see_the_kernel(source: Path) -> None:
    """They know the functions of path_manager.h, neither a helper nor a callback: the seam of decision 37."""
    assert not CONTEXT.findall(COMMENT.sub("", source.read_text()))


def test_helpers_are_called_in_one_file() -> None:
    """The other side of that seam."""
    sources = [
        file for file in (ROOT / "bpf_pm").rglob("*.[ch]") if HELPER.search(COMMENT.sub("", file.read_text()))
    ]
    assert [file.name for file in sources] == ["path_manager.h"]
