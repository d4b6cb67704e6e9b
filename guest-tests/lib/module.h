/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loading of the test modules, which are installed beside the tests if the kernel supports modules. */
#ifndef MODULE_H
#define MODULE_H
#include "guesttest.h"
#include <fcntl.h>
#include <libgen.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* Returns why there are no modules; the host writes it beside them. */
static inline const char *module_reason(const char *folder)
{
	static char reason[300] = "it has no modules";
	char path[400];
	FILE *file;

	snprintf(path, sizeof(path), "%s/../modules/reason", folder);
	file = fopen(path, "r");
	if (file && fgets(reason, sizeof(reason), file))
		reason[strcspn(reason, "\n")] = 0;
	if (file)
		fclose(file);
	return reason;
}

/* Loads modules/NAME.ko, once per boot. */
static inline void module_need(const char *name)
{
	char self[256] = "", path[400];
	int fd;

	gt_need(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0, "the path of the test");
	snprintf(path, sizeof(path), "%s/../modules/%s.ko", dirname(self), name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		gt_skip("no module %s was built for this kernel: %s", name, module_reason(self));
	if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST) {
		/* the last two are of kernels that load only signed modules */
		if (errno == ENOSYS || errno == EPERM || errno == EKEYREJECTED || errno == ENOKEY)
			gt_skip("the kernel does not load module %s: %s", name, strerror(errno));
		gt_broken("loading %s: %s", path, strerror(errno));
	}
	close(fd);
}

/* Opens the device of a test module. Each open file has its own state: one pin, one held thread. */
static inline int module_open(const char *name)
{
	char path[64];
	int fd;

	module_need(name);
	snprintf(path, sizeof(path), "/dev/%s", name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	gt_need(fd >= 0, "opening %s", path);
	return fd;
}
#endif
