# SPDX-License-Identifier: GPL-2.0-or-later
# Runs one selftest of the kernel in the guest: selftest.sh ID. Each start of a program is a run: its output
# is between a line with its command and a line with its exit status, which the host reads.
#
# /work/kselftest has the directories as `make install` leaves them. In one of them, the file cowbell-runs has
# a line for each program that a script runs by its function run_test: the program, the script, and the
# categories for the script's -t. The script is run as it is, with our function in place of its own, so that
# its other lines prepare what the program needs.
id=$1
shift
work=${COWBELL_WORK:-/work}
if [ -f "$work/tests/$id" ]; then
	exec sh "$work/tests/$id"
fi
directory=${id#*/}
name=${directory##*/}
directory=${directory%/*}
cd "$work/kselftest/$directory" || exit 1

export COWBELL_PROGRAM="$name"
while read -r program script categories; do
	[ "$program" = "$name" ] || continue
	export BASH_ENV=$work/kselftest/cowbell-run-test
	cat > "$BASH_ENV" <<'END'
unset BASH_ENV
run_test() {
	local word
	for word in "$@"; do
		case "$word" in
		*/"$COWBELL_PROGRAM")
			# as the function of the script does
			[ "$CATEGORY" != memory-failure ] || modprobe -q hwpoison_inject
			echo
			echo "# cowbell: run $*"
			"$@" 2>&1 < /dev/null
			local status=$?
			echo
			echo "# cowbell: exit $status"
			return
			;;
		esac
	done
}
readonly -f run_test
END
	# the guest is this program's alone
	destructive=
	! grep -q '^RUN_DESTRUCTIVE=' "$script" || destructive=-d
	bash "./$script" $destructive ${categories:+-t "$categories"}
	status=$?
	echo "# cowbell: end $status"
	exit 0
done < cowbell-runs

case "$(head -c 2 "$name")" in
'#!') [ -x "$name" ] || chmod +x "$name" ;;
esac
echo "# cowbell: run ./$name"
"./$name" "$@" 2>&1 < /dev/null
status=$?
echo
echo "# cowbell: exit $status"
echo "# cowbell: end 0"
