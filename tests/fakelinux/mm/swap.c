// SPDX-License-Identifier: GPL-2.0-or-later
int swap_in(int entry)
{
#ifdef CONFIG_SWAP
	return entry + 1;
#else
	return entry;
#endif
}
