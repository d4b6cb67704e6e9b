/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest test: run() and the declaration of its requirements; prints KTAP version 1 on stdout. The
 * declaration is the last item of the file, one ".field = literal" per line, because the host parses it
 * as text. run() must end in gt_pass, gt_fail (the test detected incorrect kernel behaviour), gt_broken
 * (test error, says nothing about the kernel) or gt_skip (not applicable here); otherwise the test is
 * broken. Exit status: 0 passed or skipped, 1 failed or timed out, 4 broken.
 */
#ifndef GUESTTEST_H
#define GUESTTEST_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef GT_ID
#error "compile with -DGT_ID=\"family.test\""
#endif

struct guest_test {
	const char *summary, *contract, *mechanism, *fixes, *cve, *changelog, *detects;
	const char *kind;		/* "deterministic" or "race" */
	const char *needs_kconfig;	/* "USERFAULTFD=y SWAP=n" */
	const char *min_kernel;		/* "5.10" */
	const char *params;		/* "when: pre post; page: small thp": one subtest per combination */
	bool needs_root, may_crash;
	int cpus, memory_mib, timeout_s;
	void (*run)(void);
};

#define GUEST_TEST static const struct guest_test gt_declared
GUEST_TEST;

enum gt_outcome { GT_PASS, GT_FAIL, GT_BROKEN, GT_SKIP, GT_TIMEOUT };
enum { GT_SUBTEST_EXIT = 50, GT_MAX_PARAMS = 4, GT_MAX_VALUES = 12 };

static struct {
	int number, param_count, value_count[GT_MAX_PARAMS], ended;
	char *param[GT_MAX_PARAMS], *value[GT_MAX_PARAMS][GT_MAX_VALUES], *chosen[GT_MAX_PARAMS];
	char name[256], timeout_line[300];
	pid_t owner;
	void (*at_end[4])(void);	/* see gt_at_end() */
} gt;

static inline int gt_exit_status(enum gt_outcome outcome)
{
	return outcome == GT_FAIL || outcome == GT_TIMEOUT ? 1 : outcome == GT_BROKEN ? 4 : 0;
}

static _Noreturn void gt_end(enum gt_outcome outcome, const char *format, va_list args)
{
	char text[600];

	vsnprintf(text, sizeof(text), format, args);
	for (char *c = text; *c; c++)
		*c = *c == '\n' ? ' ' : *c;
	if (getpid() != gt.owner) {	/* a helper process: gt_reap() turns its status into the outcome */
		printf("# helper: %s\n", text);
		_exit(gt_exit_status(outcome));
	}
	while (__atomic_exchange_n(&gt.ended, 1, __ATOMIC_SEQ_CST))
		pause();		/* another thread was first */
	for (int i = 4; i--; )
		if (gt.at_end[i])
			gt.at_end[i]();
	if (outcome == GT_PASS || outcome == GT_FAIL)
		printf("# %s\n%s %d %s\n", text, outcome ? "not ok" : "ok", gt.number, gt.name);
	else
		printf("%s %d %s # %s %s\n", outcome == GT_SKIP ? "ok" : "not ok", gt.number, gt.name,
		       outcome == GT_SKIP ? "SKIP" : "ERROR", text);
	fflush(stdout);
	_exit(gt.param_count ? GT_SUBTEST_EXIT + (int)outcome : gt_exit_status(outcome));
}

#define GT_OUTCOME(call, outcome) \
static inline _Noreturn __attribute__((format(printf, 1, 2))) void call(const char *format, ...) \
{ va_list args; va_start(args, format); gt_end(outcome, format, args); }
GT_OUTCOME(gt_pass, GT_PASS)
GT_OUTCOME(gt_fail, GT_FAIL)
GT_OUTCOME(gt_broken, GT_BROKEN)
GT_OUTCOME(gt_skip, GT_SKIP)

#define gt_note(format, ...) printf("# " format "\n", ##__VA_ARGS__)
/* Fails the test (kernel failure) unless the condition holds. */
#define gt_check(holds, format, ...) \
	((holds) ? (void)0 : gt_fail("expected: " format "; got: not (%s)", ##__VA_ARGS__, #holds))
/* Ends the test as broken unless its precondition holds. */
#define gt_need(holds, format, ...) \
	((holds) ? (void)0 : gt_broken(format " (%s: %s)", ##__VA_ARGS__, #holds, strerror(errno)))

/* Calls it at the end of the test, the last one first: it gives back what the guest's next test would miss. */
static inline void gt_at_end(void (*give_back)(void))
{
	int i = 0;

	while (i < 4 && gt.at_end[i] && gt.at_end[i] != give_back)
		i++;
	gt_need(i < 4, "no more than four things to give back");
	gt.at_end[i] = give_back;
}

static inline void gt_check_bytes(const void *expected, const void *got, size_t length, const char *what)
{
	const unsigned char *e = expected, *g = got;
	size_t wrong = 0, first = 0;

	for (size_t i = length; i--; )
		if (e[i] != g[i])
			wrong++, first = i;
	if (wrong)
		gt_fail("%s: %zu of %zu bytes wrong; at offset %zu expected: 0x%02x, got: 0x%02x",
			what, wrong, length, first, e[first], g[first]);
}

/* A helper process dies with the test. It reports through its exit status, read by gt_reap(). */
static inline pid_t gt_fork(void)
{
	pid_t parent = getpid(), pid = (fflush(stdout), fork());

	gt_need(pid >= 0, "fork");
	if (!pid && (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent))
		_exit(4);
	return pid;
}

static inline void gt_reap(pid_t pid)
{
	int status;

	gt_need(waitpid(pid, &status, 0) == pid, "waiting for a helper process");
	if (WIFEXITED(status) && WEXITSTATUS(status) == gt_exit_status(GT_FAIL))
		gt_fail("a helper process detected incorrect kernel behaviour, see above");
	if (status)
		gt_broken("helper process ended with wait status 0x%x", status);
}

static inline const char *gt_param(const char *name)
{
	for (int i = 0; i < gt.param_count; i++)
		if (!strcmp(gt.param[i], name))
			return gt.chosen[i];
	gt_broken("no parameter %s is declared", name);
}

static inline int gt_parse_params(void)	/* returns the number of combinations */
{
	char *rest = strdup(gt_declared.params ?: ""), *group, *word;
	int total = 1;

	while ((group = strsep(&rest, ";"))) {
		int n = 0, p = gt.param_count;
		char *name = strtok_r(strsep(&group, ":"), " ", &word);

		if (!name)
			continue;
		gt.param[gt.param_count++] = name;
		while ((gt.value[p][n] = strtok_r(n ? NULL : group, " ", &word)))
			n++;
		total *= gt.value_count[p] = n;
	}
	return total;
}

static inline void gt_choose(int number)	/* the last parameter varies fastest */
{
	int rest = number - 1, length = snprintf(gt.name, sizeof(gt.name), "%s", GT_ID);

	for (int i = gt.param_count; i--; rest /= gt.value_count[i])
		gt.chosen[i] = gt.value[i][rest % gt.value_count[i]];
	for (int i = 0; i < gt.param_count; i++)
		length += snprintf(gt.name + length, sizeof(gt.name) - length, "%c%s=%s%s", i ? ',' : '[',
				   gt.param[i], gt.chosen[i], i + 1 == gt.param_count ? "]" : "");
	gt.number = number;
	snprintf(gt.timeout_line, sizeof(gt.timeout_line), "not ok %d %s # TIMEOUT\n", number, gt.name);
}

#include "guesttest-main.h"
#endif
