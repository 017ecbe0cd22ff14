# SPDX-License-Identifier: GPL-2.0-only
"""REST: the only part of the service that imports aiohttp. ``control`` is its view of the other parts."""
