# SPDX-License-Identifier: Apache-2.0
"""REST: the only part of the service that imports aiohttp. ``control`` is its view of the other parts."""
