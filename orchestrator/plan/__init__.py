# SPDX-License-Identifier: GPL-2.0-or-later
"""What was asked for becomes jobs, and the steps of each."""
