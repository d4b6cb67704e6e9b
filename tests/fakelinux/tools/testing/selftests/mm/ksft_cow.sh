#!/bin/sh -e
# SPDX-License-Identifier: GPL-2.0-or-later
./run_vmtests.sh -t cow
