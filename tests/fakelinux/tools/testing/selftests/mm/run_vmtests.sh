#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
items=
RUN_DESTRUCTIVE=false
while getopts "dt:" option; do
	case $option in
	d) RUN_DESTRUCTIVE=true ;;
	t) items=$OPTARG ;;
	esac
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
if $RUN_DESTRUCTIVE; then
	CATEGORY="late" run_test ./cow -x
fi
exit 0
