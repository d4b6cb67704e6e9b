# SPDX-License-Identifier: GPL-2.0-or-later
"""What was asked for in, what is to be done out."""
