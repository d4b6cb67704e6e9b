# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports of runs, for people and for programs."""
