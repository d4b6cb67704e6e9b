# SPDX-License-Identifier: GPL-2.0-or-later
"""A source and config fragments in, a kernel out."""
