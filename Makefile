# SPDX-License-Identifier: GPL-2.0-or-later
# The two commands of a first day. Everything else is the cowbell command: .venv/bin/cowbell --help

.PHONY: check test bench picture clean
check: .venv/ready
	.venv/bin/cowbell test ROW=demo $(ARGS)

# ruff and mypy run as tests; -m 'not kernel' leaves out what builds and boots
test: .venv/ready-dev
	.venv/bin/pytest $(ARGS)

bench: .venv/ready-dev
	.venv/bin/python tests/bench/cli_time.py
	.venv/bin/python tests/bench/source_time.py
	.venv/bin/python tests/bench/boot_time.py
	.venv/bin/python -m tests.bench.bisect_time
	.venv/bin/python -m tests.bench.page_time
	.venv/bin/python tests/bench/build_time.py
	.venv/bin/python tests/bench/clone_time.py
	.venv/bin/python tests/bench/catalogue_time.py
	.venv/bin/python tests/bench/series_cost.py

# docs/report.png of the last stored run of ROW=demo; RUN=ID chooses another one
picture: .venv/ready-dev
	.venv/bin/python -m tests.picture $(RUN)

# what was built lives in the user's cache directory and stays
clean:
	rm -rf .venv

.venv/ready: pyproject.toml ci/setup
	ci/setup

.venv/ready-dev: pyproject.toml ci/setup
	ci/setup dev
