# SPDX-License-Identifier: GPL-2.0-or-later
"""How long Chromium takes until the page of 20 kernels x 200 tests is on the screen: seconds.

On an idle host the first paint is to come within 1 s.
"""

import os
import tempfile
from pathlib import Path

from orchestrator.report.page import render_html
from orchestrator.report.report import Judged
from tests.browser import open_browser
from tests.records import make_large_run

TRIES = 5


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cowbell-") as own:
        path = Path(own) / "report.html"
        path.write_text(render_html(Judged(make_large_run(20, 200))))
        times = []
        with open_browser(Path(own) / "profile") as browser:
            for _ in range(TRIES):
                browser.open(path.as_uri())
                browser.wait("performance.getEntriesByName('first-paint').length")
                times.append(browser.run("performance.getEntriesByName('first-paint')[0].startTime") / 1000)
        print(f"load {os.getloadavg()[0]:.1f}; best and median of {TRIES}")
        print(f"{'first paint':<28}{min(times):8.2f}{sorted(times)[TRIES // 2]:8.2f}")
        print(f"{'size, MiB':<28}{path.stat().st_size / (1 << 20):8.2f}")


if __name__ == "__main__":
    main()
