# SPDX-License-Identifier: GPL-2.0-or-later
"""Text of guests and kernels in, typed values out: pure, and made for whatever a broken kernel may say."""
