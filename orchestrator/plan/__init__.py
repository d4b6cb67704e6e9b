# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs of a command: what to build and test, and what of it is up to date."""
