# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of several runs, as text and in a browser, with guest output that means harm."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import axe_core_python
import pytest

from orchestrator.history.entry import Entry, list_outcomes
from orchestrator.parse.printk import make_printable
from orchestrator.report.chart import render_durations, render_rates
from orchestrator.report.page import find_excerpt, render_html
from orchestrator.report.report import Judged, join_runs
from orchestrator.result.record import Ended, RunRecord, TrialResult
from orchestrator.status import Status
from tests.browser import Browser, open_browser
from tests.conftest import LOGS
from tests.records import EVIL, FAILED_RESULT, JOB, RESULT, make_large_run, make_log, make_run
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


def test_every_verdict_has_an_address_that_stays(text: str) -> None:
    ids = re.findall(r'<details id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) == 8
    assert "demo/cow@demo-0123456789ab/odirect.rd-mprotect" in ids
    assert 'id="demo/cow/odirect.rd-mprotect"' in render_html(Judged(make_run()))
    assert not re.search(r"\s", "".join(ids))


def test_unexpected_results_come_first_and_once() -> None:
    text = render_html(Judged(make_run()))
    first, *kernels = text.partition("</table>")[2].split("<section")[1:]
    names = [re.findall(r'data-name="([^"]+)"', part) for part in (first, *kernels)]
    expected = ["odirect.rd-mprotect"]
    assert names == [["x.evil", "x.hung", "x.mute", "x.never"], expected, expected]


def test_the_page_names_kernels_and_what_tests_check() -> None:
    run = make_run()
    jobs = tuple(replace(job, summaries={GOOD.test: "it survives"}) for job in run.jobs)
    files = {"files/demo.cow.series.txt", "files/demo.cow.boot-1.txt"}
    text = render_html(Judged(replace(run, jobs=jobs)), (), files)
    assert "<small>odirect: it survives</small>" in text
    heads = re.findall(r'<th scope="col" class=.*?</th>', text)[:2]
    assert [re.findall(r">([^<]+)<", head) for head in heads] == [
        ["5.10.262", "demo/plain", "debian-5.10"],
        ["5.10.262", "demo/cow", "debian-5.10 + cow"],
    ]
    assert '<a href="files/demo.cow.series.txt" aria-label="series of demo/cow">series</a>' in text
    assert text.count('<a href="files/demo.cow.boot-1.txt">console log</a>') == 1
    assert "files/demo.plain" not in text, "only what exists is linked"


def make_run_at(day: str, *results: TrialResult) -> RunRecord:
    started = f"2024-05-{day}T10:00:00.000+00:00"
    job = replace(JOB, results=tuple(replace(one, started=started) for one in results))
    return replace(make_run(), run_id=f"demo-{day}", started=started, jobs=(job,))


def test_the_difference_to_the_previous_run_of_the_row() -> None:
    """Of its trials the worst counts; neither an older run, nor another variant, nor the run itself does."""
    crashed = replace(RESULT, ended=Ended.RESET, console="", exit_status=None)
    failed = replace(FAILED_RESULT, trial=2)
    runs = [make_run_at("01", crashed), make_run_at("02", RESULT, failed), make_run_at("03", RESULT)]
    other = make_run_at("02", crashed)
    runs.insert(2, replace(other, jobs=(replace(other.jobs[0], variant="cow"),)))
    history = [entry for run in runs for entry in list_outcomes(run)]
    text = render_html(Judged(runs[-1]), history)
    assert "1 verdict differs from the previous run of the row" in text
    assert f'<a href="#demo/plain/{GOOD.test}">{GOOD.test} on demo/plain</a> was FAIL.' in text
    assert "<small>was FAIL</small></a>" in text
    assert "Previous run of the row: FAIL (expected) on 6.1.176, 2024-05-02" in text
    alike = [entry for run in (make_run_at("02", RESULT), runs[-1]) for entry in list_outcomes(run)]
    assert "No verdicts differ from the previous run of the row." in render_html(Judged(runs[-1]), alike)
    assert "previous run of the row" not in render_html(Judged(runs[-1]), list(list_outcomes(runs[-1])))


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
    assert browser.run("document.querySelectorAll('details[data-name]').length") == 8
    assert browser.run("document.querySelectorAll('#matrix thead th').length") == 5
    # each verdict of the matrix leads to its grounds
    assert browser.run(
        "[...document.querySelectorAll('td a')]"
        ".every(a => document.getElementById(decodeURIComponent(a.hash.slice(1))))"
    )
    assert browser.run("document.querySelectorAll('mark').length") >= 1

    def list_shown() -> list[str]:
        shown: list[str] = browser.run(
            "[...document.querySelectorAll('#matrix tbody tr:not([hidden])')].map(e => e.dataset.name)"
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
    for _ in range(7):
        browser.press("Tab")
    assert browser.run("document.activeElement.matches('#matrix td a:focus-visible')")
    browser.press("Enter")
    browser.wait("document.querySelector('details:target')?.open")
    assert browser.run("document.activeElement.matches('details:target > summary')")

    assert browser.requests == [path.as_uri()]
    assert browser.errors == []


def list_rows(browser: Browser) -> list[str]:
    rows: list[str] = browser.run("[...document.querySelectorAll('tbody tr')].map(e => e.dataset.name)")
    return rows


@pytest.mark.chromium
def test_the_address_keeps_what_is_shown(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_html(Judged(make_run())))
    browser.open(path.as_uri())
    assert list_rows(browser) == ["x.evil", "x.hung", "x.mute", "x.never", "odirect.rd-mprotect"]
    browser.run("text.value = 'x.'; text.dispatchEvent(new Event('input'))")
    browser.run("sort.value = 'duration'; sort.dispatchEvent(new Event('input'))")
    browser.run("location.hash = 'demo/plain/x.mute'")
    address = browser.run("location.href")
    assert address.endswith("report.html?text=x.&sort=duration#demo/plain/x.mute")
    browser.open("about:blank")
    browser.open(address)
    assert list_rows(browser)[-1] == "x.never", "it was not run, and took no time"
    assert browser.run("document.querySelectorAll('tbody tr:not([hidden])').length") == 4
    assert browser.run("document.querySelector('details:target').open")
    browser.run("sort.value = 'test'; sort.dispatchEvent(new Event('input'))")
    assert list_rows(browser) == sorted(list_rows(browser))
    browser.run("sort.value = 'verdict'; sort.dispatchEvent(new Event('input'))")
    assert list_rows(browser)[-1] == "odirect.rd-mprotect"
    assert browser.errors == []


@pytest.mark.chromium
def test_a_command_is_copied(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_html(Judged(make_run())))
    browser.resize(1200, 800)
    browser.open(f"{path.as_uri()}#demo/cow/odirect.rd-mprotect")
    x, y = browser.run(
        "(() => { const r = document.querySelector('details:target .copy').getBoundingClientRect();"
        " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    browser.wait("document.querySelector('details:target .copy').textContent === 'copied'")
    # what was copied is there to be pasted
    browser.run("text.value = ''; text.focus()")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="v", commands=["paste"])
    assert browser.run("text.value").startswith("cowbell -B test ROW=demo KERNEL=debian-5.10 SERIES=cow")


@pytest.mark.chromium
def test_20_kernels_with_200_tests(browser: Browser, tmp_path: Path) -> None:
    run = make_large_run(20, 200)
    files = {f"files/demo.{job.variant}.{what}.txt" for job in run.jobs for what in ("config", "boot-1")}
    path = tmp_path / "report.html"
    path.write_text(render_html(Judged(run), (), files))
    assert path.stat().st_size < 3 << 20
    browser.open(path.as_uri())
    assert browser.run("document.querySelectorAll('td a').length") == 4000
    assert list_rows(browser)[:20] == [f"family{n % 10}.test-{n}" for n in SORTED]
    assert browser.run("document.querySelectorAll('section')[0].querySelectorAll('details').length") == 20
    # the paint waits for nothing but the text: what the scripts do comes later
    browser.wait("performance.getEntriesByName('first-paint').length")
    assert browser.run("document.querySelector('script').nextElementSibling") is None
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


@pytest.mark.chromium
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])
def test_axe_finds_no_violation(width: int, scheme: str, browser: Browser, tmp_path: Path) -> None:
    runs = make_runs()
    files = {f"{run.run_id}/files/demo.cow.{what}.txt" for run in runs for what in ("config", "boot-1")}
    path = tmp_path / "report.html"
    path.write_text(render_html(join_runs(runs), [one for run in runs for one in list_outcomes(run)], files))
    browser.resize(width, 844, scheme=scheme)
    browser.open(path.as_uri())
    browser.run("for (const e of document.querySelectorAll('details')) e.open = true")
    browser.run(Path(axe_core_python.__file__).with_name("axe.min.js").read_text() + "; 0")
    found = browser.run("axe.run(document).then(r => ({passes: r.passes.length, violations: r.violations}))")
    assert found["violations"] == []
    assert found["passes"] > 20


# of 20 tests in 10 families
SORTED = sorted(range(20), key=lambda number: f"family{number % 10}.test-{number}")
CONTRAST = """(() => {
  const parts = text => text.match(/[0-9.]+/g).map(Number);
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const page = parts(getComputedStyle(document.body).backgroundColor);
  return Math.min(...[...document.querySelectorAll('#matrix td[class], summary b')].map(e => {
    const own = parts(getComputedStyle(e).backgroundColor), text = parts(getComputedStyle(e).color);
    const [a, b] = [light(text), light(own[3] === 0 ? page : own)].sort((x, y) => y - x);
    return (a + .05) / (b + .05);
  }));
})()"""
