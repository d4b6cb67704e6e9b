# SPDX-License-Identifier: GPL-2.0-or-later
"""Cowbell: does this kernel keep memory coherent when copy-on-write meets a page pin?"""
