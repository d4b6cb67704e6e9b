# SPDX-License-Identifier: GPL-2.0-or-later
"""Bisection: find the commit, patch, version or symbol that changed a result."""
