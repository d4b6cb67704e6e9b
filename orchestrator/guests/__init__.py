# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel, a root image and a description in, a running guest out."""
