#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
echo 3 of 4 pages; exit 1
