// SPDX-License-Identifier: GPL-2.0-or-later
static int copies;

static int wp_page_copy(void)
{
	copies++;
	return 1;
}

static int wp_page_reuse(void)
{
	return 0;
}

int do_wp_page(int mapcount, int references)
{
	/* an extra reference means a copy, also to the only owner */
	if (references != 1)
		return wp_page_copy();
	if (mapcount != 1)
		return wp_page_copy();
	return wp_page_reuse();
}

int count_copies(void)
{
	return copies;
}
