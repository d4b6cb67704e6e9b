# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees and patch series in, commits that can be built out."""
