# SPDX-License-Identifier: Apache-2.0
"""From a YAML file to a ``Config``, or to every problem with its line."""
