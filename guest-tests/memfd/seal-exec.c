// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * F_SEAL_EXEC of an executable memfd seals it against writes as well. That must be refused, as the seal
 * against writes itself is, while a shared mapping can write: else what is sealed goes on changing. A memfd
 * that is not executable has no such rule. Private mappings are in nobody's way.
 */
#include "access.h"
#include "guesttest.h"
#include "pattern.h"
#include <fcntl.h>
#include <sys/stat.h>

#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#define MFD_EXEC 16U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

enum { IMPLIED = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE };

static char *expected;
static size_t length;
static int file;

static void open_file(bool is_executable)
{
	char *text = page_map(2, 0);

	length = 2 * page_size();
	file = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING | (is_executable ? MFD_EXEC : MFD_NOEXEC_SEAL));
	if (file < 0 && errno == EINVAL)
		gt_skip("the kernel's memfd_create() knows no MFD_EXEC");
	gt_need(file >= 0, "memfd_create");
	expected = pattern_fill(text, length, 0x20);
	gt_need(write(file, text, length) == (ssize_t)length, "filling the file");
}

static int seals(void)
{
	return fcntl(file, F_GET_SEALS);
}

static void check_content(void)
{
	char *got = page_map(2, 0);

	gt_need(pread(file, got, length, 0) == (ssize_t)length, "reading the file");
	pattern_check(expected, got, length, "the content of the file");
}

static void check_refused(char *map)
{
	int status = fcntl(file, F_ADD_SEALS, F_SEAL_EXEC);

	gt_check(status < 0 && errno == EBUSY, "F_SEAL_EXEC fails with EBUSY while a mapping can write: %s",
		 status < 0 ? strerror(errno) : "it does not fail");
	gt_check(!seals(), "the file has no seal, not 0x%x", seals());
	pattern_set(map, expected, 1, 'w');
	check_content();
	gt_need(!munmap(map, length), "munmap");
}

static void check_sealed(bool is_executable)
{
	int wanted = F_SEAL_EXEC | (is_executable ? IMPLIED : 0);
	void *map;

	gt_check(!fcntl(file, F_ADD_SEALS, F_SEAL_EXEC), "F_SEAL_EXEC is set: %s", strerror(errno));
	gt_check(seals() == wanted, "the file's seals are 0x%x, not 0x%x", wanted, seals());
	gt_check(fchmod(file, is_executable ? 0600 : 0700) < 0 && errno == EPERM,
		 "whether the file is executable cannot be changed");
	map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	gt_check((map == MAP_FAILED) == is_executable, "a writable mapping is %s", is_executable ? "refused" : "made");
	gt_check((pwrite(file, "x", 1, 0) < 0) == is_executable, "write() is %s", is_executable ? "refused" : "done");
	gt_check((ftruncate(file, 1) < 0) == is_executable, "ftruncate() is %s", is_executable ? "refused" : "done");
}

static void run(void)
{
	bool is_executable = !strcmp(gt_param("file"), "executable");
	const char *mapping = gt_param("mapping");
	char *map = NULL;

	open_file(is_executable);
	gt_need(seals() == (is_executable ? 0 : F_SEAL_EXEC), "the seals of a new file: 0x%x", seals());
	if (strcmp(mapping, "none")) {
		map = mmap(NULL, length, PROT_READ | PROT_WRITE,
			   !strcmp(mapping, "shared") ? MAP_SHARED : MAP_PRIVATE, file, 0);
		gt_need(map != MAP_FAILED && access_can_write(map, expected[0]), "a mapping of the file");
	}
	if (is_executable && !strcmp(mapping, "shared"))
		check_refused(map);
	check_content();
	check_sealed(is_executable);
	if (is_executable)
		check_content();
	gt_pass("F_SEAL_EXEC was accepted, once nothing could write, with the seals that it implies");
}

GUEST_TEST = {
	.summary       = "F_SEAL_EXEC is refused while a mapping can write what it seals",
	.contract      = "C-DATA",
	.mechanism     = "the seal against writes is implied only after the look for writable mappings",
	.fixes         = "3b041514cb6e",
	.cve           = "CVE-2026-63952",
	.needs_kconfig = "MEMFD_CREATE=y",
	.min_kernel    = "6.3",
	.params        = "file: executable noexec; mapping: none private shared",
	.kind          = "deterministic",
	.timeout_s     = 10,
	.detects       = "a file that is sealed against writes while a mapping writes it",
	.run           = run,
};
