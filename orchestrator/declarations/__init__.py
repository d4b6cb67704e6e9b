# SPDX-License-Identifier: GPL-2.0-or-later
"""What is declared in files: cases, rows, architectures, conditions, known complaints."""
