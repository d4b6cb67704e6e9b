# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases in, what they did out: nothing is judged here."""
