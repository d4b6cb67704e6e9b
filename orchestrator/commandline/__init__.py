# SPDX-License-Identifier: GPL-2.0-or-later
"""The words that are typed, what is shown of progress, and what is explained."""
