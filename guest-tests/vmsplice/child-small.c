// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CVE-2020-29374: a pipe keeps a page that its owner has unmapped. A kernel that checks only the
 * mapcount lets the parent's next write reuse the page, and the child reads the new data from the
 * pipe.
 */
#include "guesttest.h"
#include "pagestate.h"
#include "pipepin.h"

static void run(void)
{
	char *page = page_map(1, PIPEPIN_OLD);

	/*
	 * After the child's munmap the page has one mapping, the parent's, and a second reference,
	 * the pipe's. Mappings say reuse, references say copy; only copying keeps the secret.
	 */
	pipepin_check_child_reads_parent(page, page_size());
}

GUEST_TEST = {
	.summary       = "a child cannot read the parent's later writes through vmsplice()",
	.contract      = "C-ISO",
	.mechanism     = "reuse by mapcount ignores the R/O reference of a pipe",
	.fixes         = "09854ba94c6a",
	.cve           = "CVE-2020-29374",
	.changelog     = "29a",
	.min_kernel    = "2.6.17",
	.needs_root    = false,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the child reads the parent's secret from its pipe",
	.run           = run,
};
