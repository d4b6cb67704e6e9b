# SPDX-License-Identifier: GPL-2.0-or-later
"""History: every result, recorded, compared, merged and summarised as coverage."""
