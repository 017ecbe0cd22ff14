# SPDX-License-Identifier: Apache-2.0
"""What a policy is, and which policy owns a cgroup. Pure."""
