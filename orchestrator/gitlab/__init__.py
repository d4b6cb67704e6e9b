# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows in, the GitLab pipeline that builds, tests and reports them out."""
