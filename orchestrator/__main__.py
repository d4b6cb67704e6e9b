# SPDX-License-Identifier: GPL-2.0-or-later
from orchestrator.cli.main import main

main()
