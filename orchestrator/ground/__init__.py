# SPDX-License-Identifier: GPL-2.0-or-later
"""What everything stands on: errors, processes, the store, and the host's cores and memory."""
