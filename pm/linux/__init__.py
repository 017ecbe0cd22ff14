# SPDX-License-Identifier: Apache-2.0
"""The only part that talks to the kernel."""
