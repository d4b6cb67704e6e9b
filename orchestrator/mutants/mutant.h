/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mutants: mistakes, one of which is switched on by its number in /sys/module/mutant/parameters/number. 0 is
 * none. -1 only records which of them are reached, as the number of one does for that one. The parameter
 * "reached" has them as a bitmap, and is cleared by a write.
 */
#ifndef _LINUX_MUTANT_H
#define _LINUX_MUTANT_H
#include <linux/compiler.h>
#include <linux/types.h>

/* The oom_score_adj of a test, which a mutant is for. */
#define MUTANT_MARK 7

extern int mutant_number;
bool mutant_reach(int number);

/* Whether the kernel is to do mistake NUMBER, a constant. The symbol tells that the compiler left the code in. */
static __always_inline bool mutant(const int number)
{
	asm volatile(".set mutant_site_%c0, 0" : : "i" (number));
	return unlikely(READ_ONCE(mutant_number)) && mutant_reach(number);
}

/* A condition that mistake NUMBER takes for true, or false. What the compiler can tell stays as it is. */
#define mutant_true(number, condition) ({					\
	bool _mutant = (condition);						\
	if (!__builtin_constant_p(_mutant) && mutant(number))			\
		_mutant = true;							\
	_mutant;								\
})
#define mutant_false(number, condition) ({					\
	bool _mutant = (condition);						\
	if (!__builtin_constant_p(_mutant) && mutant(number))			\
		_mutant = false;						\
	_mutant;								\
})
#endif
