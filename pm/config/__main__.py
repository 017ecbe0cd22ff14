# SPDX-License-Identifier: Apache-2.0
"""``python -m pm.config FILE``: the child of ``load_in_child``; it writes a pickled answer to stdout."""

from __future__ import annotations

import os
import sys

from pm.config.load import Failed, Loaded, load_config, write_answer
from pm.errors import ConfigError, PmError


def main() -> None:
    # The output of an imported path manager must not get into the answer.
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    answer: Loaded | Failed
    try:
        answer = load_config(sys.argv[1])
    except ConfigError as e:
        answer = Failed(e.problems)
    except PmError as e:
        answer = Failed((), e.message, e.remedy)
    with open(answer_fd, "wb") as stream:
        write_answer(answer, stream)


if __name__ == "__main__":
    main()
