# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels: config fragments, Kconfig, builds."""
