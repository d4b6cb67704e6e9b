# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of test runs and their meaning: verdicts, statistics, repetition."""
