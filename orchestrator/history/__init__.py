# SPDX-License-Identifier: GPL-2.0-or-later
"""Every result ever recorded: kept, compared, merged, summed up as coverage."""
