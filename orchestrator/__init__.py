# SPDX-License-Identifier: GPL-2.0-or-later
"""Cowbell tests that pinned pages stay coherent under copy-on-write."""
