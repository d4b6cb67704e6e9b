// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Widens a race: one thread waits inside a kernel function until another has done its part. It spins
 * there, with all locks of its caller held and maybe with interrupts off: the other thread must not
 * wait for this CPU.
 */
#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "cowhold.h"

#define COWHOLD_STEP_US 10

enum { COWHOLD_ARMED, COWHOLD_HELD, COWHOLD_LET_GO, COWHOLD_LATE };

struct cowhold {
	struct mutex lock;
	struct kprobe probe;
	struct cowhold_arm ask;
	atomic_t state;
	bool is_armed, is_registered;
};

static int cowhold_enter(struct kprobe *probe, struct pt_regs *regs)
{
	struct cowhold *hold = container_of(probe, struct cowhold, probe);
	unsigned long steps = hold->ask.limit_ms * (1000UL / COWHOLD_STEP_US);

	if (task_pid_nr(current) != hold->ask.tid ||
	    atomic_cmpxchg(&hold->state, COWHOLD_ARMED, COWHOLD_HELD) != COWHOLD_ARMED)
		return 0;
	while (steps-- && atomic_read(&hold->state) == COWHOLD_HELD)
		udelay(COWHOLD_STEP_US);
	atomic_cmpxchg(&hold->state, COWHOLD_HELD, COWHOLD_LATE);
	return 0;
}

/* A post handler keeps kprobes from optimizing the probe into a jump, which would wait for every CPU. */
static void cowhold_after(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

/*
 * Not when the thread is let go, only before the next time: then it may just be coming by, and an emulator
 * that runs its CPUs side by side has been seen to go on with the breakpoint that was taken away there.
 */
static void cowhold_unregister(struct cowhold *hold)
{
	if (hold->is_registered)
		unregister_kprobe(&hold->probe);
	hold->is_registered = false;
}

static long cowhold_arm(struct cowhold *hold, const struct cowhold_arm *ask)
{
	long result;

	if (hold->is_armed)
		return -EBUSY;
	if (!ask->limit_ms || ask->limit_ms > COWHOLD_MOST_MS || ask->reserved ||
	    strnlen(ask->symbol, sizeof(ask->symbol)) == sizeof(ask->symbol))
		return -EINVAL;
	cowhold_unregister(hold);
	hold->ask = *ask;
	atomic_set(&hold->state, COWHOLD_ARMED);
	memset(&hold->probe, 0, sizeof(hold->probe));
	hold->probe.symbol_name = hold->ask.symbol;
	hold->probe.offset = hold->ask.offset;
	hold->probe.pre_handler = cowhold_enter;
	hold->probe.post_handler = cowhold_after;
	result = register_kprobe(&hold->probe);
	hold->is_armed = hold->is_registered = !result;
	return result;
}

static long cowhold_tell(int state)
{
	return state == COWHOLD_HELD ? 0 : state == COWHOLD_ARMED ? -EAGAIN : -ETIME;
}

static long cowhold_release(struct cowhold *hold)
{
	int was;

	if (!hold->is_armed)
		return -EINVAL;
	was = atomic_xchg(&hold->state, COWHOLD_LET_GO);
	hold->is_armed = false;
	return cowhold_tell(was);
}

static long cowhold_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct cowhold *hold = file->private_data;
	struct cowhold_arm ask;
	long result;

	if (command == COWHOLD_IOC_ARM && copy_from_user(&ask, (void __user *)argument, sizeof(ask)))
		return -EFAULT;
	if (mutex_lock_killable(&hold->lock))
		return -EINTR;
	switch (command) {
	case COWHOLD_IOC_ARM:
		result = cowhold_arm(hold, &ask);
		break;
	case COWHOLD_IOC_LOOK:
		result = hold->is_armed ? cowhold_tell(atomic_read(&hold->state)) : -EINVAL;
		break;
	case COWHOLD_IOC_RELEASE:
		result = cowhold_release(hold);
		break;
	default:
		result = -ENOTTY;
	}
	mutex_unlock(&hold->lock);
	return result;
}

static int cowhold_open(struct inode *inode, struct file *file)
{
	struct cowhold *hold = kzalloc(sizeof(*hold), GFP_KERNEL);

	if (!hold)
		return -ENOMEM;
	mutex_init(&hold->lock);
	file->private_data = hold;
	return 0;
}

static int cowhold_close(struct inode *inode, struct file *file)
{
	struct cowhold *hold = file->private_data;

	cowhold_release(hold);
	cowhold_unregister(hold);
	kfree(hold);
	return 0;
}

static const struct file_operations cowhold_operations = {
	.owner = THIS_MODULE,
	.open = cowhold_open,
	.release = cowhold_close,
	.unlocked_ioctl = cowhold_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice cowhold_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "cowhold",
	.fops = &cowhold_operations,
	.mode = 0600,
};

module_misc_device(cowhold_device);
MODULE_DESCRIPTION("Holds a thread inside the kernel, for the races of Cowbell's guest tests");
MODULE_LICENSE("GPL");
