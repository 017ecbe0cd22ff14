# SPDX-License-Identifier: Apache-2.0
"""Loads a configuration file: in this process, or in a child process that keeps the validator out of it."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from shlex import quote
from typing import IO, TYPE_CHECKING

from pm import __version__
from pm.config.model import Config
from pm.errors import ConfigError, PmError, Problem, of_system
from pm.path_managers.choice import RESTART
from pm.path_managers.registry import shape_of

if TYPE_CHECKING:
    from pm.config.document import Document

CHILD_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration and the SHA-256 (hex) of the bytes it was read from.

    ``warnings`` are what is valid and most likely a mistake.
    """

    config: Config
    digest: str
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """A child's answer if it has no configuration; ``problems`` are those of a ConfigError."""

    problems: tuple[Problem, ...] = ()
    message: str = ""
    remedy: str = ""


def config_digest(content: bytes) -> str:
    """SHA-256 of a configuration file's bytes, hex."""
    return hashlib.sha256(content).hexdigest()


def load_config(path: str) -> Loaded:
    """Read and validate a YAML file.

    Raises ConfigError with every problem found. This loads pydantic and PyYAML into the process: the
    service calls ``load_in_child`` instead.
    """
    from pm.config.document import read_bytes

    loaded, _ = load_content(path, read_bytes(path))
    return loaded


def load_content(path: str, content: bytes) -> tuple[Loaded, Document]:
    """``load_config`` of what was read from a file; with the document, which knows the lines."""
    from pm.config.document import parse
    from pm.config.files import check_files
    from pm.config.suspicions import suspicions
    from pm.config.validate import validate

    document = parse(path, content)
    config = validate(document)
    check_files(document, config)
    return Loaded(config, config_digest(content), suspicions(document, config)), document


async def load_in_child(path: str) -> Loaded:
    """Run ``load_config`` in a short-lived process: same result, same errors; PmError if the process dies."""
    import asyncio  # here because the child imports this module too and does not need it

    return await finish_loading(await asyncio.to_thread(begin_loading, path), path)


def begin_loading(path: str) -> subprocess.Popen[bytes]:
    """The process of ``load_in_child``. Raises PmError where there can be none."""
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "pm.config", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_child_environment(),
        )
    except OSError as e:
        raise of_system(e) from e


async def finish_loading(child: subprocess.Popen[bytes], path: str) -> Loaded:
    """What ``load_in_child`` returns and raises, of its process."""
    import asyncio

    try:
        output, complaint = await asyncio.to_thread(child.communicate, timeout=CHILD_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise PmError(
            f"reading {path} took longer than {CHILD_TIMEOUT_S:.0f} s",
            "check the file system that it is on, and third parties' path managers: "
            "the code of their parameters may not end",
        ) from None
    finally:
        child.kill()  # nothing happens to one that has ended
        await asyncio.to_thread(child.wait)
    if child.returncode:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"status {child.returncode}"
        raise PmError(
            f"the configuration loader ended with {how}" + (f" ({last})" if last else ""),
            f"run `mptcp-pm check {quote(path)}`",
        )
    answer = await asyncio.to_thread(_read_answer, output)
    if isinstance(answer, Loaded):
        return answer
    raise ConfigError(answer.problems) if answer.problems else PmError(answer.message, answer.remedy)


def write_answer(answer: Loaded | Failed, stream: IO[bytes]) -> None:
    """The child's part: what it is, then its answer."""
    pickle.dump(_identity(), stream)
    pickle.dump(answer, stream)


def _read_answer(output: bytes) -> Loaded | Failed:
    """The service's part. Raises PmError where the child is of another version, or has other plug-ins."""
    # The pickles come from our own executable over our own pipe: they can be trusted.
    stream = io.BytesIO(output)
    if (there := pickle.load(stream)) != (here := _identity()):
        change = f" from {here[0]} to {there[0]}" if here[0] != there[0] else ""
        raise PmError(f"mptcp-pm has changed{change} since the service started", RESTART)
    answer: Loaded | Failed = pickle.load(stream)
    return answer


def _identity() -> tuple[str, str]:
    """Version and shape of the configuration: dataclasses with slots are pickled by position."""
    return __version__, shape_of(Config)


def _child_environment() -> dict[str, str]:
    """The environment that makes the child import from where this process does, since ``-P`` adds nothing."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path)}
