# SPDX-License-Identifier: GPL-2.0-or-later
"""Running tests in guests, and what is found out about a guest that is lost."""
