# SPDX-License-Identifier: Apache-2.0
"""Programs that were compiled beforehand are used where they fit, and refused where they do not."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from pm.errors import SystemUnfit
from pm.linux.bpf import precompiled, tcp_option_layouts
from pm.linux.bpf.objects import SOURCES, NoCompiler, compile_object, link_instructions
from pm.linux.bpf.precompile import main, precompile
from pm.linux.bpf.precompiled import DIRECTORY_VARIABLE, NAMES, check_objects, obtain_object, read_object
from pm.linux.host import remedies


@pytest.fixture(autouse=True)
def on_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the tests run: remedies are those for a host."""
    monkeypatch.setattr(remedies, "in_container", lambda: False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("built")
    precompile(directory)
    return directory


@pytest.fixture
def objects(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that the test may spoil."""
    directory = tmp_path / "objects"
    shutil.copytree(built, directory)
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(directory))
    return directory


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv/bin/python"))


def test_two_builds_are_equal(built: Path, tmp_path: Path) -> None:
    """Not a byte depends on when, where or with which descriptors the compiler ran."""
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    assert main([str(tmp_path / "again")]) == 0
    for fd in spare:
        os.close(fd)
    for name in NAMES:
        assert (tmp_path / f"again/{name}.json").read_bytes() == (built / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_no_map_is_needed(name: str, objects: Path, tmp_path: Path) -> None:
    """Maps and code are those that BCC makes with maps of the kernel, but for the maps' numbers."""
    try:
        with_maps = asyncio.run(compile_object(SOURCES / f"{name}.c", log_file=tmp_path / "log"))
    except SystemUnfit:
        assert os.geteuid() != 0
        return
    stored = read_object(name)
    assert {m: spec for m, (_, spec) in stored.maps.items()} == {
        m: spec for m, (_, spec) in with_maps.maps.items()
    }
    numbers = {fd: stored.maps[m][0] for m, (fd, _) in with_maps.maps.items()}
    assert {p: link_instructions(code, numbers, {}) for p, code in with_maps.programs.items()} == dict(
        stored.programs
    )


@pytest.mark.usefixtures("no_compiler")
def test_one_that_fits_needs_no_compiler(objects: Path, tmp_path: Path) -> None:
    """All kinds of programs are read from what is there."""
    assert check_objects()
    for name in NAMES:
        found = asyncio.run(obtain_object(SOURCES / f"{name}.c", log_file=tmp_path / "log"))
        assert found == read_object(name)


def other_machine(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "riscv64"}))


def other_source(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = path.parent / "sources"
    shutil.copytree(SOURCES, sources)
    (sources / "option_parts/send.h").open("a").write("\n")
    monkeypatch.setattr(precompiled, "SOURCES", sources)


def other_layout(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OptionState(ctypes.Structure):
        _fields_ = tcp_option_layouts.OptionState._fields_[:-1]

    monkeypatch.setattr(tcp_option_layouts, "OptionState", OptionState)


def truncated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def no_object(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("[1]")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            other_machine,
            rf"is for riscv64, and this machine is {os.uname().machine}: compile the programs again",
        ),
        (other_source, "of another version of mptcp-pm: install one version only"),
        (other_layout, "of another version of mptcp-pm: install one version only"),
        (truncated, r"options\.json is unreadable: install one version only"),
        (no_object, r"options\.json is unreadable: install one version only"),
    ],
)
def test_one_that_does_not_fit(
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
    reason: str,
    objects: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not loaded, and where BCC is missing the error says what is wrong, in one line."""
    spoil(objects / "options.json", monkeypatch)
    with pytest.raises(SystemUnfit, match=reason) as refused:
        check_objects()
    assert "\n" not in str(refused.value)
    venv.create(tmp_path / "venv", symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv/bin/python"))
    with pytest.raises(SystemUnfit, match=reason):
        asyncio.run(obtain_object(SOURCES / "options.c", log_file=tmp_path / "log"))


def test_one_that_does_not_fit_is_compiled(
    objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where BCC is installed, a program of another version costs time only."""
    expected = read_object("options")
    truncated(objects / "options.json", monkeypatch)
    source = SOURCES / "options.c"
    try:
        found = asyncio.run(obtain_object(source, log_file=tmp_path / "log"))
    except SystemUnfit:
        assert os.geteuid() != 0
        return
    assert found.programs.keys() == expected.programs.keys()


@pytest.mark.usefixtures("no_compiler")
def test_a_third_party_needs_the_compiler(
    objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file cannot have been compiled: the error names the package or, in a container, the image."""
    for there, remedy in ((False, "apt install python3-bpfcc"), (True, "use the image `full`")):
        monkeypatch.setattr(remedies, "in_container", lambda there=there: there)
        with pytest.raises(NoCompiler, match=f"`source:`.* is not installed: {remedy}"):
            asyncio.run(obtain_object(SOURCES / "options.c", log_file=tmp_path / "log", cflags=["-DX"]))


@pytest.mark.usefixtures("no_compiler")
def test_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has precompiled anything: it is the compiler that is missing."""
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "none"))
    assert not check_objects()
    with pytest.raises(NoCompiler, match="apt install python3-bpfcc"):
        asyncio.run(obtain_object(SOURCES / "options.c", log_file=tmp_path / "log"))


def test_bad_c_is_told_where_it_is_built(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A build that fails writes nothing, shows the compiler's output, and has an exit status."""
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file")]) == 1
    assert "exists" in capfd.readouterr().err
