# SPDX-License-Identifier: Apache-2.0
"""The first reading of the configuration, which goes on while the service's modules are imported."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple, Self

from pm.config.load import begin_loading
from pm.linux.host.file_watch import Signature, signature


class Reading(NamedTuple):
    """``seen`` is the file's signature from before ``child`` began to read it."""

    path: Path
    seen: Signature
    child: subprocess.Popen[bytes]

    @classmethod
    def begin(cls, path: Path) -> Self:
        return cls(path, signature(path), begin_loading(str(path)))
