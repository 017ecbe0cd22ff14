# SPDX-License-Identifier: GPL-2.0-only
"""The host around the service: cgroups, mounts, files, sysctls, privileges, service manager."""
