# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests: root image, QEMU, boot, setup, connection, snapshot."""
