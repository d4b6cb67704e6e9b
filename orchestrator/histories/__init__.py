# SPDX-License-Identifier: GPL-2.0-or-later
"""What was ever earned: kept, compared, merged."""
