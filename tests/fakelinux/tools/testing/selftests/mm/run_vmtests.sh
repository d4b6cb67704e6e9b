#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
items=
while getopts "t:" option; do
	items=$OPTARG
done
echo "items: $items"
run_test() {
	echo "not ours: $*"
}
CATEGORY="cow" run_test ./cow
CATEGORY="ksm" run_test ./ksm -M -p 10
binary=./broken
CATEGORY="thp" run_test bash ${binary} anon 20
if [ -n "$NO_SUCH_VARIABLE" ]; then
	CATEGORY="never" run_test ./unlisted
fi
if [ -x ./cow_32 ]; then
	CATEGORY="cow" run_test ./cow_32
fi
CATEGORY="late" run_test ./cow -s 2
exit 0
