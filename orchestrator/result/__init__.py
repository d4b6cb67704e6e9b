# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of what happened, and what they mean: verdicts, statistics, repetition."""
