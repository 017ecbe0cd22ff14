# SPDX-License-Identifier: Apache-2.0
"""A record of each session at its end: one line of JSON, to a file, the journal or standard output."""
