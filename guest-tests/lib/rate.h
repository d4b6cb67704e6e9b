/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Prints how often a race was hit, in the format that the host parses. Call it before the result. */
#ifndef RATE_H
#define RATE_H
#include "guesttest.h"

/* hits of tries in which incorrect kernel behaviour was detected. */
static inline void gt_rate(unsigned long hits, unsigned long tries)
{
	gt_note("rate: %lu of %lu tries", hits, tries);
}
#endif
