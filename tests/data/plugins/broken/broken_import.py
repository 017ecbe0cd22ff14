# SPDX-License-Identifier: Apache-2.0
"""A module that needs one that is not there."""

import no_such_module  # type: ignore[import-not-found]  # noqa: F401 # on purpose
