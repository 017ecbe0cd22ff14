# SPDX-License-Identifier: GPL-2.0-only
"""The only part that talks to the kernel."""
