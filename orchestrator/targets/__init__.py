# SPDX-License-Identifier: GPL-2.0-or-later
"""What a target of the command line does, where that is more than the pipeline."""
