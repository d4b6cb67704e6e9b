#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
echo no hugetlb; exit 4
