/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How often a race was hit, in the one form that the host reads. Said before the outcome, on both sides. */
#ifndef RATE_H
#define RATE_H
#include "guesttest.h"

/* Of so many chances that the kernel had to go wrong, so many in which it was seen to. */
static inline void gt_rate(unsigned long hits, unsigned long tries)
{
	gt_note("rate: %lu of %lu tries", hits, tries);
}
#endif
