# SPDX-License-Identifier: GPL-2.0-or-later
"""The store: everything that is built or measured, in folders named by content hash."""
