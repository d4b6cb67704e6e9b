// SPDX-License-Identifier: GPL-2.0-or-later
int do_wp_page(int mapcount, int references);
int swap_in(int entry);

const char linux_banner[] __attribute__((used)) = "Linux version " BANNER;

void _start(void)
{
	for (;;)
		swap_in(do_wp_page(1, 2));
}
