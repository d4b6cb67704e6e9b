# SPDX-License-Identifier: GPL-2.0-or-later
"""A case that fails here and passes there in, the one change that did it out."""
