# SPDX-License-Identifier: GPL-2.0-or-later
"""One module per target or family of targets: help, variables, options, examples, and the run function."""
