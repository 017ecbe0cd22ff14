# SPDX-License-Identifier: Apache-2.0
"""What happens to a session: known, planned, acted upon, compared with the kernel."""
