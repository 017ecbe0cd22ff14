# SPDX-License-Identifier: Apache-2.0
"""BPF programs and maps: compiled, loaded, attached, read and written."""
