# SPDX-License-Identifier: GPL-2.0-or-later
# First the file that KCONFIG_ALLCONFIG names, then Kconfig: each symbol gets the value asked for, if what it
# depends on is set; a symbol that Kconfig does not know is dropped without a word.
function leave() {
	if (symbol == "")
		return
	if (value == "" || (needs != "" && !set[needs]))
		print "# CONFIG_" symbol " is not set"
	else {
		print "CONFIG_" symbol "=" value
		set[symbol] = 1
	}
}
FNR == NR && FILENAME != "Kconfig" {
	if (match($0, /^CONFIG_[A-Z0-9_]+=/))
		asked[substr($0, 8, RLENGTH - 8)] = substr($0, RLENGTH + 1)
	next
}
/^config / { leave(); symbol = $2; value = asked[symbol]; needs = "" }
/^\tdef_bool y/ { value = "y" }
/^\tdepends on / { needs = $3 }
END { leave() }
