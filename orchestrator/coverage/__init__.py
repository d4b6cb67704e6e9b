# SPDX-License-Identifier: GPL-2.0-or-later
"""Coverage: which lines and branches of the kernel's functions the tests reach, counted by gcov."""
