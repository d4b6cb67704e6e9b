# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs tests in guests, and examines guests that are lost."""
