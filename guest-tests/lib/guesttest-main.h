/* SPDX-License-Identifier: GPL-2.0-or-later */
/* main() of a guest test: prints its description, checks its requirements, runs it. See guesttest.h. */
#ifndef GUESTTEST_MAIN_H
#define GUESTTEST_MAIN_H

static inline void gt_json(const char *name, const char *text)
{
	printf(", \"%s\": \"", name);
	for (const unsigned char *c = (const unsigned char *)(text ?: ""); *c; c++)
		printf(*c == '"' || *c == '\\' ? "\\%c" : *c < ' ' ? "\\u%04x" : "%c", *c);
	putchar('"');
}

static inline int gt_describe(const struct guest_test *t)
{
	printf("{\"id\": \"%s\"", GT_ID);
	gt_json("summary", t->summary);
	gt_json("contract", t->contract);
	gt_json("mechanism", t->mechanism);
	gt_json("fixes", t->fixes);
	gt_json("cve", t->cve);
	gt_json("changelog", t->changelog);
	gt_json("detects", t->detects);
	gt_json("kind", t->kind);
	gt_json("needs_kconfig", t->needs_kconfig);
	gt_json("min_kernel", t->min_kernel);
	gt_json("params", t->params);
	printf(", \"needs_root\": %s", t->needs_root ? "true" : "false");
	printf(", \"may_crash\": %s", t->may_crash ? "true" : "false");
	printf(", \"cpus\": %d, \"memory_mib\": %d, \"timeout_s\": %d}\n",
	       t->cpus ?: 1, t->memory_mib, t->timeout_s);
	return 0;
}

/* Reads the output of a program without a shell, which small guests lack. Returns the length. */
static inline size_t gt_output_of(char *const argv[], char *text, size_t room)
{
	size_t used = 0;
	int out[2];
	pid_t pid;

	if (pipe(out) || (pid = fork()) < 0)
		return 0;
	if (!pid) {
		dup2(out[1], 1);
		close(2);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(out[1]);
	for (ssize_t n; used < room && (n = read(out[0], text + used, room - used)) > 0; used += n)
		;
	close(out[0]);
	waitpid(pid, NULL, 0);
	return used;
}

/* Returns the required symbols that the running kernel was not built with, or NULL. */
static inline const char *gt_missing_symbols(const char *needs, const char *release)
{
	static char missing[400];
	const size_t room = 1 << 20;
	char *config = calloc(1, room), *list = strdup(needs), line[120], boot[300], *word, *rest;
	char *const readers[][4] = {
		{ "zcat", "/proc/config.gz" }, { "busybox", "zcat", "/proc/config.gz" }, { "cat", boot }
	};

	snprintf(boot, sizeof(boot), "/boot/config-%s", release);
	config[0] = '\n';
	for (size_t i = 0; i < 3 && !strstr(config, "\nCONFIG_"); i++)
		gt_output_of(readers[i], config + 1, room - 2);
	if (!strstr(config, "\nCONFIG_")) {
		gt_note("the kernel's configuration is not readable: %s not checked", needs);
		return NULL;
	}
	for (char *need = strtok_r(list, " ", &rest); need; need = strtok_r(NULL, " ", &rest)) {
		bool off = strlen(need) > 2 && !strcmp(need + strlen(need) - 2, "=n");

		word = strchr(need, '=');
		snprintf(line, sizeof(line), "\nCONFIG_%.*s%s", off ? (int)(word - need) : 100, need,
			 off ? "=" : "\n");
		if (!!strstr(config, line) == off)
			snprintf(missing + strlen(missing), sizeof(missing) - strlen(missing), " %s", need);
	}
	return missing[0] ? missing : NULL;
}

/* Returns the unmet requirement of the test, or NULL. */
static inline const char *gt_unmet(const struct guest_test *t)
{
	static char why[500];
	struct utsname uts;
	struct sysinfo info;
	int need[3] = { 0 }, have[3] = { 0 };
	const char *missing, *oldest = t->min_kernel ?: "0";

	uname(&uts);
	sysinfo(&info);
	sscanf(oldest, "%d.%d.%d", &need[0], &need[1], &need[2]);
	sscanf(uts.release, "%d.%d.%d", &have[0], &have[1], &have[2]);
	for (int i = 0; i < 3 && have[i] <= need[i]; i++)
		if (have[i] < need[i]) {
			snprintf(why, sizeof(why), "needs kernel >= %s, this is %s", oldest, uts.release);
			return why;
		}
	if (t->needs_root && geteuid())
		return "needs root";
	if (sysconf(_SC_NPROCESSORS_ONLN) < t->cpus) {
		snprintf(why, sizeof(why), "needs %d CPUs", t->cpus);
		return why;
	}
	/* memory_mib is the size of the guest; the kernel keeps a part for itself */
	if ((info.totalram >> 10) * info.mem_unit >> 10 < (unsigned long)t->memory_mib * 7 / 8) {
		snprintf(why, sizeof(why), "needs %d MiB of memory", t->memory_mib);
		return why;
	}
	missing = t->needs_kconfig ? gt_missing_symbols(t->needs_kconfig, uts.release) : NULL;
	if (missing)
		snprintf(why, sizeof(why), "kernel is not built with%s", missing);
	return missing ? why : NULL;
}

static inline void gt_on_alarm(int signal)
{
	(void)signal;
	if (__atomic_exchange_n(&gt.ended, 1, __ATOMIC_SEQ_CST))
		return;
	if (write(1, gt.timeout_line, strlen(gt.timeout_line)) < 0)
		_exit(4);
	_exit(gt.param_count ? GT_SUBTEST_EXIT + GT_TIMEOUT : gt_exit_status(GT_TIMEOUT));
}

static inline _Noreturn void gt_run(const struct guest_test *t, const char *unmet)
{
	const char *factor = getenv("GT_TIMEOUT_MUL");
	double limit = t->timeout_s * (factor && atof(factor) > 0 ? atof(factor) : 1);

	gt.owner = getpid();
	if (unmet)
		gt_skip("%s", unmet);
	signal(SIGALRM, gt_on_alarm);
	alarm(limit < 1 ? 1 : (unsigned int)(limit + 0.999));
	t->run();
	gt_broken("run() came to no outcome");
}

/*
 * Runs each subtest in a forked child, so that its memory changes and its death do not affect the next
 * one.
 */
static inline enum gt_outcome gt_run_subtest(const struct guest_test *t, const char *unmet)
{
	pid_t pid;
	int status;

	fflush(stdout);
	pid = fork();
	if (!pid && !prctl(PR_SET_PDEATHSIG, SIGKILL))
		gt_run(t, unmet);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		printf("not ok %d %s # ERROR cannot fork: %s\n", gt.number, gt.name, strerror(errno));
	else if (WIFSIGNALED(status))
		printf("not ok %d %s # ERROR killed by signal %d\n", gt.number, gt.name, WTERMSIG(status));
	else if (WEXITSTATUS(status) >= GT_SUBTEST_EXIT && WEXITSTATUS(status) <= GT_SUBTEST_EXIT + GT_TIMEOUT)
		return WEXITSTATUS(status) - GT_SUBTEST_EXIT;
	else
		printf("not ok %d %s # ERROR exited with status %d and no outcome\n", gt.number, gt.name,
		       WEXITSTATUS(status));
	return GT_BROKEN;
}

int main(int argc, char **argv)
{
	const struct rlimit no_core = { 0, 0 };
	const char *unmet;
	int combinations = gt_parse_params(), worst = 0, status;

	if (argc == 2 && !strcmp(argv[1], "--describe"))
		return gt_describe(&gt_declared);
	if (argc > 1) {
		fprintf(stderr, "usage: %s [--describe]\n", argv[0]);
		return 4;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	setrlimit(RLIMIT_CORE, &no_core);
	printf("KTAP version 1\n1..%d\n", combinations);
	unmet = gt_unmet(&gt_declared);
	gt_choose(1);
	if (!gt.param_count)
		gt_run(&gt_declared, unmet);
	for (int number = 1; number <= combinations; number++) {
		gt_choose(number);
		status = gt_exit_status(gt_run_subtest(&gt_declared, unmet));
		worst = status == 1 || !worst ? status : worst;
	}
	return worst;
}
#endif
