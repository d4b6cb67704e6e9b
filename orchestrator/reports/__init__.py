# SPDX-License-Identifier: GPL-2.0-or-later
"""Judged runs in, what people and machines read out."""
