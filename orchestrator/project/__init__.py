# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers of what people write: rows, expectations, tests, guests, conditions."""
