/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tries accesses that may be refused by a signal. */
#ifndef ACCESS_H
#define ACCESS_H
#include "guesttest.h"
#include <setjmp.h>

static sigjmp_buf access_before;

static inline void access_fault(int signal)
{
	(void)signal;
	siglongjmp(access_before, 1);
}

/* Writes the byte; false if that ends in SIGSEGV. For one thread at a time. */
static inline bool access_can_write(volatile char *byte, char value)
{
	signal(SIGSEGV, access_fault);
	if (sigsetjmp(access_before, 1))
		return false;
	*byte = value;
	return true;
}

/* Reads the byte; false if that ends in SIGSEGV. */
static inline bool access_can_read(const volatile char *byte)
{
	signal(SIGSEGV, access_fault);
	if (sigsetjmp(access_before, 1))
		return false;
	(void)*byte;
	return true;
}
#endif
