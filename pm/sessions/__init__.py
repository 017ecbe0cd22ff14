# SPDX-License-Identifier: GPL-2.0-only
"""What happens to a session: known, planned, acted upon, compared with the kernel."""
