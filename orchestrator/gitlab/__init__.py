# SPDX-License-Identifier: GPL-2.0-or-later
"""The GitLab pipeline that builds, tests and reports the rows."""
