# SPDX-License-Identifier: GPL-2.0-only
"""From a YAML file to a ``Config``, or to every problem with its line."""
