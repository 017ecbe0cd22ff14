# SPDX-License-Identifier: Apache-2.0
"""The tests of ``inside`` pass under the patched kernel; kernel/run keeps its promises."""

from __future__ import annotations

import contextlib
import os
import pty
import re
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


def test_input_is_fast() -> None:
    """3 MB of any bytes arrive whole, and soon enough for the deadline."""
    data = os.urandom(3_000_000)
    assert kernel_run("cat", stdin=data, options=("--timeout", "30")).stdout == data


def test_input_comes_as_it_is_written() -> None:
    """A command gets each piece when it is written, and the end after the last."""
    command = [str(RUN), "sh", "-c", "while read -r line; do echo got $line; done; echo end"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    for piece in (b"one\n", b"two\n", b"three\n"):
        process.stdin.write(piece)
        process.stdin.flush()
        assert process.stdout.readline() == b"got " + piece
    process.stdin.close()
    assert process.stdout.read() == b"end\n"
    assert process.wait() == 0
    process.stdout.close()


def test_input_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless input holds nothing up, nor does one that is closed or silent; no process stays."""
    monkeypatch.setenv("KILLED_BY_TEST", mark := os.urandom(8).hex())
    for shell in (f"yes | {RUN} echo done", f"{RUN} echo done <&-"):
        result = subprocess.run(["sh", "-c", shell], cwd=ROOT, capture_output=True, timeout=100)
        assert (result.returncode, result.stdout, result.stderr) == (0, b"done\n", b"")
    with subprocess.Popen([RUN, "echo", "done"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as silent:
        assert silent.stdout
        assert silent.stdout.read() == b"done\n"
        assert silent.wait() == 0
    wait_equal(lambda: processes(mark), [])


def test_output_is_plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Into files and pipes goes what the command wrote: it sees no terminal, hence writes no colours."""
    monkeypatch.setenv("TERM", "xterm-256color")
    (tmp_path / "test_red.py").write_text("def test_red():\n    assert not 'red'\n")
    script = (
        "test -t 1 || echo out; test -t 2 || echo err >&2; echo again >/dev/stdout; ls -d --color=auto /usr;"
        f"{sys.executable} -B -m pytest -p no:cacheprovider {tmp_path}/test_red.py"
    )
    result = kernel_run("bash", "-c", script, options=("--share", str(tmp_path)))
    assert result.stdout.startswith(b"out\nagain\n/usr\n=====")
    assert result.stdout.endswith(b"=====\n")
    assert not {b"\x1b", b"\r"} & {bytes([byte]) for byte in result.stdout + result.stderr}
    assert result.stderr.startswith(b"err\n")


def test_output_in_one_file_keeps_its_order(tmp_path: Path) -> None:
    """What goes to one file from both streams stands there as it was written."""
    with (tmp_path / "output").open("wb") as output:
        subprocess.run(
            [RUN, "bash", "-c", "for n in {1..300}; do echo out $n; echo err $n >&2; done"],
            stdout=output, stderr=subprocess.STDOUT, check=True,
        )  # fmt: skip
    expected = "".join(f"out {n}\nerr {n}\n" for n in range(1, 301))
    assert (tmp_path / "output").read_text() == expected


def test_what_is_left_running_does_not_hold_the_output() -> None:
    """The machine ends with the command, whose output is complete, whatever still has it open."""
    result = kernel_run("bash", "-c", "setsid sleep 1000 & disown; seq 100000", options=("--timeout", "60"))
    assert result.returncode == 0
    assert result.stdout == "".join(f"{n}\n" for n in range(1, 100001)).encode()


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


@pytest.mark.parametrize(
    ("options", "form", "remotes"),
    [
        ([], "10.77.{}.{}", {1: [1]}),
        (["--announce"], "10.77.{}.{}", {1: [1], 2: [1, 2, 3]}),
        (["--announce", "--ipv6"], "[fd00:77:{}::{}]", {1: [1], 2: [1, 2, 3]}),
    ],
)
def test_try(options: list[str], form: str, remotes: dict[int, list[int]]) -> None:
    """kernel/try shows what a path manager in BPF C makes of a session, and of what the server announces."""
    command = [str(ROOT / "kernel/try"), *options, str(Path(__file__).parent / "second_remote.c")]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    wanted = {
        f"{form.format(local, 1)} -> {form.format(remote, 2)}"
        for remote, locals in remotes.items()
        for local in locals
    }
    assert lines[0] == f"second_remote.c: {len(wanted)} subflows"
    ends = (line.partition(" ESTAB")[0].strip() for line in lines[1:-1])
    assert {re.sub(r":\d+( |$)", r"\1", pair) for pair in ends} == wanted
    assert lines[-1] == "opened by the program: True"
