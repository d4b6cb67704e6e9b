# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants: mistakes put into the kernel, all in one image and switched at run time, to measure tests."""
