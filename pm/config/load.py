# SPDX-License-Identifier: GPL-2.0-only
"""Loading a configuration file: in this process, or in a child so that the validator never lives here."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from dataclasses import dataclass

from pm.config.model import Config
from pm.errors import ConfigError, PmError, Problem

CHILD_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration and the SHA-256 (hex) of the bytes it was read from."""

    config: Config
    digest: str


@dataclass(frozen=True, slots=True)
class Failed:
    """What a child sends where there is no configuration; ``problems`` for a ConfigError."""

    problems: tuple[Problem, ...] = ()
    message: str = ""
    remedy: str = ""


def config_digest(content: bytes) -> str:
    """SHA-256 of a configuration file's bytes, hex."""
    return hashlib.sha256(content).hexdigest()


def load_config(path: str) -> Loaded:
    """Read and validate a YAML file.

    Raises ConfigError with every problem found, and PmError where a path manager's package is broken.
    Loads pydantic and PyYAML into this process: a service calls ``load_in_child``.
    """
    from pm.config.document import parse, read_bytes
    from pm.config.validate import validate

    content = read_bytes(path)
    return Loaded(validate(parse(path, content)), config_digest(content))


async def load_in_child(path: str) -> Loaded:
    """``load_config`` in a short-lived process: same result, same errors, PmError if it dies."""
    import asyncio  # here, since the child imports this module too: a sixth of its time

    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "pm.config", path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_child_environment(),
    )
    try:
        async with asyncio.timeout(CHILD_TIMEOUT_S):
            output, complaint = await child.communicate()
    except TimeoutError:
        raise PmError(
            f"reading {path} took longer than {CHILD_TIMEOUT_S:.0f} s", "check the file system it is on"
        ) from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"status {child.returncode}"
        raise PmError(
            f"the configuration loader ended with {how}" + (f" ({last})" if last else ""),
            f"run `mptcp-pm check {path}`",
        )
    # From our own executable over our own pipe: nobody else's pickle.
    answer: Loaded | Failed = pickle.loads(output)
    if isinstance(answer, Loaded):
        return answer
    raise ConfigError(answer.problems) if answer.problems else PmError(answer.message, answer.remedy)


def _child_environment() -> dict[str, str]:
    """The child imports from where this process does; ``-P`` adds no directory of its own."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path)}
