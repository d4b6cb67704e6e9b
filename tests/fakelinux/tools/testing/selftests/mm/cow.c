// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/fake.h>
#include <stdio.h>
int main(void)
{
	printf("TAP version 13\n1..%d\nok 1 no leak\n", FAKE_ABI);
	return 0;
}
