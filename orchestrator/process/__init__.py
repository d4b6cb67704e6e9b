# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands, workers and the host's cores: how Cowbell starts programs and shares the machine."""
