# SPDX-License-Identifier: Apache-2.0
"""The host around the service: cgroups, mounts, files, sysctls, privileges, service manager."""
