# SPDX-License-Identifier: GPL-2.0-only
"""The tests of ``inside`` pass under the patched kernel; kernel/run keeps its promises."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab.patched_kernel import RUN, kernel_run
from tests.lab.service import ROOT
from tests.lab.waiting import wait_equal

INSIDE = sorted((Path(__file__).parent / "inside").glob("test_*.py"))
Result = subprocess.CompletedProcess[bytes]


def run_inside(path: Path) -> Result:
    return kernel_run(
        *(sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", "--tb=short"),
        str(path),
    )


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Result]]]:
    """What became of each file that is wanted; two machines run at once."""
    wanted = {item.name for item in request.session.items}
    with ThreadPoolExecutor(2) as executor:
        yield {
            path.stem: executor.submit(run_inside, path)
            for path in INSIDE
            if f"test_inside[{path.stem}]" in wanted
        }
        executor.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", [path.stem for path in INSIDE])
def test_inside(results: dict[str, Future[Result]], name: str) -> None:
    """The tests of the file pass under the patched kernel."""
    result = results[name].result()
    print(result.stdout.decode(errors="replace"))
    print(result.stderr.decode(errors="replace"), file=sys.stderr)
    assert result.returncode == 0


def test_exit_status_streams_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """kernel/run passes arguments, environment, directory, streams and exit status through."""
    monkeypatch.setenv("A_VALUE", "with 'quotes' and\nlines")
    script = 'printf "%s|%s|%s|" "$A_VALUE" "$1" "$PWD"; cat; echo error >&2; exit 7'
    data = bytes(range(256)) * 300
    result = kernel_run("bash", "-c", script, "bash", 'a "b" *', stdin=data)
    assert result.returncode == 7
    assert result.stdout == f"with 'quotes' and\nlines|a \"b\" *|{ROOT}|".encode() + data
    assert result.stderr.decode().splitlines()[-1] == "error"


def test_terminal() -> None:
    """On a terminal: the command sees its size, Ctrl-C interrupts it, and the terminal is as before."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (45, 150))
    before = termios.tcgetattr(theirs)
    script = "stty size; trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        [RUN, "--timeout", "60", "--", "bash", "-c", script],
        cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    shown = b""
    while b"ready" not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, b"\x03")
    assert process.wait() == 3
    assert shown + os.read(ours, 4096) == b"45 150\r\nready\r\ninterrupted\r\n"
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def test_time_limit() -> None:
    """A command that does not end is killed: exit status 124, and no process stays."""
    result = kernel_run("sleep", "1000", options=("--timeout", "2"))
    assert result.returncode == 124


def test_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process stays of a kernel/run that is told to end."""
    monkeypatch.setenv("KILLED_BY_TEST", mark := os.urandom(8).hex())
    process = subprocess.Popen([RUN, "sh", "-c", "echo ready; sleep 1000"], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    assert len(processes(mark)) > 3
    process.terminate()
    assert process.wait() == 143
    process.stdout.close()
    wait_equal(lambda: processes(mark), [])


def processes(mark: str) -> list[str]:
    """Those with this in their environment."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in environ.read_bytes():
                found.append(environ.parent.name)
    return found


def test_files_are_read_only(tmp_path: Path) -> None:
    """Files of the machine are seen, and can not be changed, except in a shared directory."""
    result = kernel_run("touch", str(ROOT / "kernel" / "touched"))
    assert result.returncode != 0
    assert not (ROOT / "kernel" / "touched").exists()
    result = kernel_run("sh", "-c", f"echo yes > {tmp_path}/written", options=("--share", str(tmp_path)))
    assert result.returncode == 0
    assert (tmp_path / "written").read_text() == "yes\n"


def test_directory_that_tmp_hides(tmp_path: Path) -> None:
    """A working directory below /tmp is seen, also where something below it is shared."""
    (tmp_path / "seen").write_text("yes\n")
    (tmp_path / "inner").mkdir()
    result = kernel_run(
        *("cp", "seen", "inner/written"),
        options=("--share", str(tmp_path / "inner")),
        directory=tmp_path,
    )
    assert result.returncode == 0
    assert (tmp_path / "inner" / "written").read_text() == "yes\n"
