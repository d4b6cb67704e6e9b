// SPDX-License-Identifier: GPL-2.0-or-later
/* The switch of the mutants, see linux/mutant.h. */
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/mutant.h>
#include <linux/sched/signal.h>

int mutant_number __read_mostly;
static DECLARE_BITMAP(reached, MUTANTS);

/*
 * Only the test and the kernel's own threads make mistakes, so that the guest's shell and SSH server do not notice
 * them by accident. The test's mark is inherited by what it starts.
 */
static bool is_tested(void)
{
	return !in_task() || current->flags & PF_KTHREAD ||
	       (current->signal && READ_ONCE(current->signal->oom_score_adj) == MUTANT_MARK);
}

bool mutant_reach(int number)
{
	int now = READ_ONCE(mutant_number);

	if ((now != number && now != -1) || !is_tested())
		return false;
	if (!test_bit(number, reached))
		set_bit(number, reached);
	return now == number;
}

static int get_reached(char *text, const struct kernel_param *param)
{
	return scnprintf(text, PAGE_SIZE, "%*pb\n", MUTANTS, reached);
}

static int clear_reached(const char *text, const struct kernel_param *param)
{
	bitmap_zero(reached, MUTANTS);
	return 0;
}

static const struct kernel_param_ops reached_ops = { .set = clear_reached, .get = get_reached };

module_param_named(number, mutant_number, int, 0644);
module_param_cb(reached, &reached_ops, NULL, 0644);
