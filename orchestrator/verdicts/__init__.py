# SPDX-License-Identifier: GPL-2.0-or-later
"""What was done in, what it comes to out."""
