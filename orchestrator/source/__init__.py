# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees and series: fetched, patched, checked out."""
