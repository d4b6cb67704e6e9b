# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers of the files that users write: rows, expectations, tests, guests, conditions."""
