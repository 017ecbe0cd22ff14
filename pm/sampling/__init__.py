# SPDX-License-Identifier: Apache-2.0
"""Figures of the last minutes, taken each second while somebody looks. No I/O of its own."""
