/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A scsi_debug disk that is swap, made slow: what it reads or writes is in flight for most of a second. */
#ifndef SLOWDISK_H
#define SLOWDISK_H
#include "guesttest.h"
#include "pagestate.h"
#include "version.h"

#define SLOWDISK_DIR "/sys/bus/pseudo/drivers/scsi_debug/"
#define SLOWDISK_NS "800000000"

#define SLOWDISK_ZSWAP "/sys/module/zswap/parameters/enabled"

static char slowdisk_before[32], slowdisk_zswap[8];

/* A delay is refused while requests wait. */
static inline bool slowdisk_set(const char *file, const char *value)
{
	for (int i = 0; i < 5000; i++) {
		if (page_write_file(file, value))
			return true;
		if (errno != EBUSY)
			return false;
		usleep(1000);
	}
	return false;
}

static inline void slowdisk_end(void)
{
	if (!slowdisk_set(SLOWDISK_DIR "delay", slowdisk_before))
		gt_note("the disk stays slow: %s", strerror(errno));
	if (slowdisk_zswap[0] == 'Y')
		page_write_file(SLOWDISK_ZSWAP, "Y");
}

/* Sets the disk's name in /sys/class/block. Skips the test where there is none. */
static inline void slowdisk_find(char *name, size_t room)
{
	char line[512], path[128], model[64], device[64] = "";
	FILE *swaps = fopen("/proc/swaps", "re");

	while (swaps && !device[0] && fgets(line, sizeof(line), swaps)) {
		if (sscanf(line, "/dev/%63s", device) != 1)
			continue;
		snprintf(path, sizeof(path), "/sys/class/block/%s/device/model", device);
		page_read_file(path, model, sizeof(model));
		if (strncmp(model, "scsi_debug", 10))
			device[0] = 0;
	}
	if (swaps)
		fclose(swaps);
	if (!device[0])
		gt_skip("no swap on a scsi_debug disk, which can be made slow");
	snprintf(name, room, "%s", device);
}

/* Until the test ends; zswap is off as long, since what it keeps is not written to the disk. */
static inline void slowdisk_begin(void)
{
	page_read_file(SLOWDISK_ZSWAP, slowdisk_zswap, sizeof(slowdisk_zswap));
	page_read_file(SLOWDISK_DIR "delay", slowdisk_before, sizeof(slowdisk_before));
	gt_need(slowdisk_before[0], "the delay of scsi_debug");
	gt_at_end(slowdisk_end);
	gt_need(slowdisk_zswap[0] != 'Y' || page_write_file(SLOWDISK_ZSWAP, "N"), "switching zswap off");
	gt_need(slowdisk_set(SLOWDISK_DIR "ndelay", SLOWDISK_NS), "setting the delay of scsi_debug");
}

/* Whether pages must not change while they are written. Since 6.11 (c6e56cf6b2e7) checksums are enough. */
static inline bool slowdisk_is_stable(const char *name)
{
	char path[128], text[64];

	snprintf(path, sizeof(path), "/sys/class/block/%s/queue/stable_writes", name);
	page_read_file(path, text, sizeof(text));
	if (text[0] == '1')
		return true;
	snprintf(path, sizeof(path), "/sys/class/block/%s/integrity/format", name);
	page_read_file(path, text, sizeof(text));
	return version_is_at_least(6, 11) && strstr(text, "-DIF-");
}
#endif
