# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs shown to people and machines."""
