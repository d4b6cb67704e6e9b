# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of several runs, as text and in a browser, with guest output that means harm."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.history.entry import Entry, list_outcomes
from orchestrator.parse.printk import make_printable
from orchestrator.report.chart import render_durations, render_rates
from orchestrator.report.page import find_excerpt, render_html
from orchestrator.report.report import Judged, join_runs
from orchestrator.result.record import RunRecord
from orchestrator.status import Status
from tests.browser import Browser, open_browser
from tests.conftest import LOGS
from tests.records import EVIL, make_log, make_run
from tests.samples import GOOD

BIDI = "\u202egnp.exe\u2066 \u200b\ufeff\ud800"
RACY = GOOD.stdout.replace("ok 1", "# rate: 3 of 1000 tries\nok 1")


def make_runs() -> list[RunRecord]:
    """Two runs of one row, the later one with a crash, and with a name that no page may take as it is."""
    first = make_run()
    splat = (LOGS / "oops-mid-test.log").read_text(errors="replace")
    crashed = replace(GOOD, test="x.crash", console=splat, stdout=RACY.replace(GOOD.test, "x.crash"))
    job = replace(
        first.jobs[0],
        version="6.1.176",
        tree="debian-6.1",
        tests={"x.crash": ("x.crash",), "x.evil": (f"x.evil[name=</script><script>boom()</script>{BIDI}]",)},
        results=(crashed, replace(GOOD, test="x.evil", console=EVIL * 3 + BIDI, stdout="")),
    )
    return [
        first,
        replace(first, run_id="demo-ba9876543210", started="2024-01-16T12:00:00+00:00", jobs=(job,)),
    ]


@pytest.fixture
def text() -> str:
    runs = make_runs()
    return render_html(join_runs(runs), [entry for run in runs for entry in list_outcomes(run)])


def test_guest_output_is_text_only(text: str) -> None:
    assert "<script>boom" not in text
    assert "&lt;script&gt;boom()" in text
    assert not set(text) & set(BIDI.replace(" ", "").replace("gnp.exe", "")) - set("gnp.exe")
    assert "&lt;U+202E&gt;gnp.exe" in text
    assert "\x1b" not in text
    assert "\x00" not in text
    text.encode()


def test_what_makes_no_picture_is_told_by_its_number() -> None:
    assert make_printable("a\u202eb\x00\x1b[0m") == "a<U+202E>b\\x00\\x1b[0m"


def test_an_excerpt_is_bounded_and_shows_the_splat() -> None:
    splat = (LOGS / "oops-mid-test.log").read_text(errors="replace")
    long = "quiet\n" * 5000 + splat + "quiet\n" * 5000
    excerpt = find_excerpt(long)
    assert len(excerpt.lines) < 80
    assert any(marked for _, marked in excerpt.lines)
    assert excerpt.before + len(excerpt.lines) + excerpt.after == long.count("\n")
    quiet = find_excerpt("quiet\n" * 1000)
    assert (quiet.before, len(quiet.lines), quiet.after) == (960, 40, 0)
    assert find_excerpt("").lines == ()
    assert all(len(line) <= 400 for line, _ in find_excerpt("x" * 100_000).lines)


def test_a_page_of_much_output_stays_small() -> None:
    run = make_run()
    loud = replace(run.jobs[1], results=(replace(GOOD, console=make_log(GOOD.test, "loud\n" * 200_000)),))
    assert len(render_html(Judged(replace(run, jobs=(loud,))))) < 100_000


def test_charts() -> None:
    entries: list[Entry] = [entry for run in make_runs() for entry in list_outcomes(run)]
    # what the second kernel's crash told of itself does not count: its verdict has no rate
    assert not any(entry.tries for entry in entries)
    one = replace(entries[0], kernel="5.10 <&>", raw=Status.FAIL, hits=3, tries=1000)
    assert "3 of 1000, 0.062 % to 0.87 %" in render_rates([one])
    assert "5.10 &lt;&amp;&gt;" in render_rates([one])
    assert render_rates([replace(one, tries=0)]) == ""
    assert render_rates([replace(one, hits=1001)]) == ""
    assert render_durations([one]) == ""
    svg = render_durations([one, replace(one, hits=0), replace(one, hits=None, raw=Status.CRASH)])
    # what failed has another shape as well as another colour
    assert (svg.count("<rect"), svg.count("<circle")) == (2, 1)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with open_browser(tmp_path / "profile") as opened:
        yield opened


@pytest.mark.chromium
def test_in_a_browser(browser: Browser, text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(text)
    browser.resize(1200, 800)
    browser.open(path.as_uri())
    assert browser.run("document.title").startswith("Cowbell: joined-")
    assert browser.run("document.querySelectorAll('details.verdict').length") == 8
    assert browser.run("document.querySelectorAll('#matrix thead th').length") == 5
    # each verdict of the matrix leads to its grounds
    assert browser.run("[...document.querySelectorAll('td a')].every(a => document.querySelector(a.hash))")
    assert browser.run("document.querySelectorAll('mark').length") >= 1

    def list_shown() -> list[str]:
        shown: list[str] = browser.run(
            "[...document.querySelectorAll('#matrix tbody tr:not([hidden]) th')].map(e => e.textContent)"
        )
        return shown

    assert len(list_shown()) == 7
    browser.press("/")
    assert browser.run("document.activeElement.id") == "text"
    browser.call("Input.insertText", text="x.cr")
    assert list_shown() == ["x.crash"]
    assert browser.run("document.getElementById('count').textContent") == "1 of 7 tests"
    browser.press("Escape")
    assert len(list_shown()) == 7
    browser.run("flips.click()")
    assert list_shown() == ["odirect.rd-mprotect"]
    browser.run("flips.click(); status.value = 'timeout'; status.dispatchEvent(new Event('input'))")
    assert list_shown() == ["x.hung"]
    browser.run("status.value = ''; status.dispatchEvent(new Event('input'))")

    # by the keyboard alone: from the filter to a verdict, which opens and has the focus
    browser.run("text.focus()")
    for _ in range(5):
        browser.press("Tab")
    assert browser.run("document.activeElement.matches('#matrix td a:focus-visible')")
    browser.press("Enter")
    browser.wait("document.querySelector('details:target')?.open")
    assert browser.run("document.activeElement.matches('details:target > summary')")

    assert browser.requests == [path.as_uri()]
    assert browser.errors == []


@pytest.mark.chromium
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1200, "dark")])
def test_fits(width: int, scheme: str, browser: Browser, text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(text)
    browser.resize(width, 844, scheme=scheme)
    browser.open(path.as_uri())
    browser.run("for (const e of document.querySelectorAll('details')) e.open = true")
    assert browser.run("document.documentElement.scrollWidth") == width
    wide = (
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide, pre') && "
        f"e.getBoundingClientRect().right > {width}).map(e => e.outerHTML)"
    )
    assert browser.run(wide) == []
    # the names of the tests stay where they are
    browser.run("document.querySelector('.wide').scrollTo(500, 300)")
    left = (
        "e => e.getBoundingClientRect().left - document.querySelector('.wide').getBoundingClientRect().left"
    )
    assert browser.run(f"({left})(document.querySelector('tbody th'))") <= 1
    # the contrast of WCAG AA, of each kind of verdict on its own ground
    assert browser.run(CONTRAST) >= 4.5


CONTRAST = """(() => {
  const parts = text => text.match(/[0-9.]+/g).map(Number);
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const page = parts(getComputedStyle(document.body).backgroundColor);
  return Math.min(...[...document.querySelectorAll('#matrix td[class], summary .st')].map(e => {
    const own = parts(getComputedStyle(e).backgroundColor), text = parts(getComputedStyle(e).color);
    const [a, b] = [light(text), light(own[3] === 0 ? page : own)].sort((x, y) => y - x);
    return (a + .05) / (b + .05);
  }));
})()"""
