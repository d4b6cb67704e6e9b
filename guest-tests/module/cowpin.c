// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Holds pins of every kind until user space releases them, and accesses the pinned memory as a device
 * would. Kernels before 5.19 have no gup_test that does this. Uses exported symbols only, so that the
 * kernel under test needs no patch.
 */
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "cowpin.h"

#define COWPIN_MOST_PAGES 65536

struct cowpin {
	struct mutex lock;
	struct page **pages;
	unsigned long count;
	bool is_get;
};

static long cowpin_take(const struct cowpin_pin *ask, struct page **pages)
{
	unsigned int flags = (ask->flags & COWPIN_WRITE ? FOLL_WRITE : 0) |
			     (ask->flags & COWPIN_LONGTERM ? FOLL_LONGTERM : 0);
	bool is_get = ask->flags & COWPIN_GET;
	long got;

	if (ask->flags & COWPIN_FAST)
		return is_get ? get_user_pages_fast(ask->addr, ask->pages, flags, pages) :
				pin_user_pages_fast(ask->addr, ask->pages, flags, pages);
	mmap_read_lock(current->mm);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	got = is_get ? get_user_pages(ask->addr, ask->pages, flags, pages) :
		       pin_user_pages(ask->addr, ask->pages, flags, pages);
#else
	got = is_get ? get_user_pages(ask->addr, ask->pages, flags, pages, NULL) :
		       pin_user_pages(ask->addr, ask->pages, flags, pages, NULL);
#endif
	mmap_read_unlock(current->mm);
	return got;
}

static void cowpin_drop(struct page **pages, unsigned long count, bool is_get)
{
	unsigned long i;

	if (!is_get)
		unpin_user_pages(pages, count);
	for (i = 0; is_get && i < count; i++)
		put_page(pages[i]);
	kvfree(pages);
}

static long cowpin_pin(struct cowpin *pin, const struct cowpin_pin *ask)
{
	bool is_get = ask->flags & COWPIN_GET;
	struct page **pages;
	long got;

	if (pin->pages)
		return -EBUSY;
	if (ask->addr & ~PAGE_MASK || !ask->pages || ask->pages > COWPIN_MOST_PAGES || ask->reserved ||
	    ask->flags & ~(COWPIN_WRITE | COWPIN_LONGTERM | COWPIN_FAST | COWPIN_GET))
		return -EINVAL;
	pages = kvcalloc(ask->pages, sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;
	got = cowpin_take(ask, pages);
	if (got != (long)ask->pages) {
		cowpin_drop(pages, got > 0 ? got : 0, is_get);
		return got < 0 ? got : -EFAULT;
	}
	pin->pages = pages;
	pin->count = got;
	pin->is_get = is_get;
	return 0;
}

static long cowpin_copy(struct cowpin *pin, const struct cowpin_copy *ask, bool is_write)
{
	u64 end = (u64)pin->count << PAGE_SHIFT, at = ask->offset, left = ask->size;
	void __user *user = u64_to_user_ptr(ask->buffer);

	if (!pin->pages || at > end || left > end - at)
		return -EINVAL;
	while (left) {
		struct page *page = pin->pages[at >> PAGE_SHIFT];
		size_t part = min_t(u64, left, PAGE_SIZE - offset_in_page(at));
		void *memory = kmap(page);
		unsigned long missed = is_write ? copy_from_user(memory + offset_in_page(at), user, part) :
						  copy_to_user(user, memory + offset_in_page(at), part);

		kunmap(page);
		if (missed)
			return -EFAULT;
		if (is_write)
			set_page_dirty_lock(page);
		at += part;
		user += part;
		left -= part;
	}
	return 0;
}

static long cowpin_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct cowpin *pin = file->private_data;
	void __user *user = (void __user *)argument;
	struct cowpin_pin ask;
	struct cowpin_copy copy;
	long result = 0;

	switch (command) {
	case COWPIN_IOC_PIN:
		if (copy_from_user(&ask, user, sizeof(ask)))
			return -EFAULT;
		break;
	case COWPIN_IOC_READ:
	case COWPIN_IOC_WRITE:
		if (copy_from_user(&copy, user, sizeof(copy)))
			return -EFAULT;
		break;
	case COWPIN_IOC_UNPIN:
		break;
	default:
		return -ENOTTY;
	}
	if (mutex_lock_killable(&pin->lock))
		return -EINTR;
	if (command == COWPIN_IOC_PIN) {
		result = cowpin_pin(pin, &ask);
	} else if (command != COWPIN_IOC_UNPIN) {
		result = cowpin_copy(pin, &copy, command == COWPIN_IOC_WRITE);
	} else if (pin->pages) {
		cowpin_drop(pin->pages, pin->count, pin->is_get);
		pin->pages = NULL;
	} else {
		result = -EINVAL;
	}
	mutex_unlock(&pin->lock);
	return result;
}

static int cowpin_open(struct inode *inode, struct file *file)
{
	struct cowpin *pin = kzalloc(sizeof(*pin), GFP_KERNEL);

	if (!pin)
		return -ENOMEM;
	mutex_init(&pin->lock);
	file->private_data = pin;
	return 0;
}

static int cowpin_release(struct inode *inode, struct file *file)
{
	struct cowpin *pin = file->private_data;

	if (pin->pages)
		cowpin_drop(pin->pages, pin->count, pin->is_get);
	kfree(pin);
	return 0;
}

static const struct file_operations cowpin_operations = {
	.owner = THIS_MODULE,
	.open = cowpin_open,
	.release = cowpin_release,
	.unlocked_ioctl = cowpin_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice cowpin_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "cowpin",
	.fops = &cowpin_operations,
	.mode = 0600,
};

module_misc_device(cowpin_device);
MODULE_DESCRIPTION("Pins user pages in every way that the kernel knows, for Cowbell's guest tests");
MODULE_LICENSE("GPL");
