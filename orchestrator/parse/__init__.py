# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure parsers: KTAP and kernel logs."""
