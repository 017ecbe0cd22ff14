# SPDX-License-Identifier: GPL-2.0-only
"""BPF programs and maps: compiled, loaded, attached, read and written."""
