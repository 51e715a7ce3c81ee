"""The page of `lmctl compare` in a real browser: no complaint, no request, visible plots, and every control."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, browser
from in_process import succeed
from recorded_runs import write_grid, write_run, write_sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"),
]

COLOURS = """[...document.querySelectorAll("#%s canvas")].map((canvas) => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data, counts = {};
  for (let i = 0; i < pixels.length; i += 4) {
    const colour = pixels.slice(i, i + 3).join();
    if (pixels[i + 3] === 255) counts[colour] = (counts[colour] || 0) + 1;
  }
  return counts;
})[0]"""
BLUE, DARK_BLUE = "0,96,168", "108,182,255"
"""The first colour of lines, light and dark."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("compare")
    write_grid(folder / "grid")
    write_run(folder / "grid" / "other", 4.0, rows=7, precision___target_="x.Fp8")
    (folder / "grid" / "other" / "metrics.jsonl").open("a").write("{")
    succeed("compare", "grid", "grid/other", "out=page.html", cwd=folder)
    with browser(folder / "profile") as tab:
        tab.open(f"file://{folder}/page.html")
        yield tab
        assert tab.complaints == [], "complaints on the console"
        assert {url for url in tab.requests if url != f"file://{folder}/page.html"} == set(), "requests"


def choose(tab: Browser, control: str, value: str) -> None:
    tab.run(
        f"(() => {{ const one = document.getElementById('{control}');"
        f" if (one.type === 'checkbox') one.checked = {value!r} === 'true'; else one.value = {value!r};"
        f" one.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
    )


def text(tab: Browser, selector: str) -> str:
    return str(tab.run(f"document.querySelector({selector!r}).innerText"))


def rows(tab: Browser) -> list[str]:
    found = tab.run("[...document.querySelectorAll('#runs tbody th')].map((one) => one.innerText)")
    return list(found)


def test_everything_is_said(page: Browser):
    assert text(page, "#counts") == "10 runs: 8 completed, 1 failed, 1 refused"
    assert "validation rows of corpus: 7, not 100" in text(page, "#notes")
    assert "metrics.jsonl: 1 lines cannot be read" in text(page, "#notes")
    assert "the loss of step 30 is nan" in text(page, "#failed")
    assert "alert(1)" in text(page, "#failed"), "messages are text"
    assert "optim.lr" in text(page, "#differences")
    assert "precision: bf16" in text(page, "#effects").lower()


def test_curves_can_be_seen_over_everything(page: Browser):
    choose(page, "theme", "light")
    for over in ("step", "tokens", "seconds", "bytes"):
        for lines in ("bands", "runs"):
            choose(page, "curve-over", over)
            choose(page, "curve-lines", lines)
            choose(page, "curve-rows", "both")
            assert page.run(COLOURS % "curve-plot")[BLUE] > 100, (over, lines)
    choose(page, "curve-log", "true")
    choose(page, "curve-smoothing", "20")
    choose(page, "curve-colour", "0")
    assert page.run(COLOURS % "curve-plot")[BLUE] > 100
    choose(page, "curve-log", "false")


def test_a_line_is_hidden_and_comes_back(page: Browser):
    legend = "document.querySelector('#curve-legend button')"
    before = page.run(COLOURS % "curve-plot")[BLUE]
    page.run(f"{legend}.click()")
    assert page.run(f"{legend}.getAttribute('aria-pressed')") == "false"
    assert page.run(COLOURS % "curve-plot").get(BLUE, 0) < before / 10
    page.run(f"{legend}.click()")
    assert page.run(COLOURS % "curve-plot")[BLUE] == before


def test_quality_against_every_cost(page: Browser):
    for cost in ("seconds", "peak_memory_bytes", "model_bytes", "bytes_sent", "tokens"):
        choose(page, "cost-cost", cost)
        assert page.run(COLOURS % "cost-plot")[BLUE] > 20, cost
    choose(page, "cost-cost", "seconds")
    assert text(page, "#cost-front").count("optim.lr=0.1") == 2
    choose(page, "cost-metric", "corpus/mlm_accuracy")
    assert "%" in text(page, "#cost-front")


def test_the_table_is_sorted_and_filtered(page: Browser):
    sort = "[...document.querySelectorAll('#runs thead button')].find((one) => one.innerText === 'loss').click()"
    page.run(sort)
    assert rows(page)[0].endswith("optim.lr=0.1,precision=fp32,seed=1")
    assert rows(page)[-1].endswith("precision=fp16,seed=1"), "what has no value comes last"
    page.run(sort)
    assert rows(page)[0].endswith("optim.lr=0.2,precision=bf16,seed=2")
    assert page.run("document.querySelector('#runs th[aria-sort=descending]').innerText") == "loss"
    choose(page, "filter", "bf16 -failed")
    assert len(rows(page)) == 3
    assert text(page, "#shown") == "3 of 10 runs shown"
    choose(page, "filter", "")


def test_two_runs_side_by_side(page: Browser):
    choose(page, "pair-b", "2")
    said = text(page, "#pair")
    assert "precision\tFp32\tBf16" in said
    assert "3.7500 (3.5000 to 4.0000)\t4.3500 (4.1000 to 4.6000)\t+0.6000" in said
    assert re.search(r"%\)?\t-3\.68 points", said), "a difference of shares is no percentage"


def test_the_keyboard_reads_a_plot(page: Browser):
    for plot, words in (("curve", "bytes sent"), ("cost", "optim.lr=")):
        page.run(f"document.getElementById('{plot}-plot').focus()")
        page.press("ArrowRight")
        first = text(page, f"#{plot}-readout")
        page.press("ArrowRight")
        assert words in first
        assert text(page, f"#{plot}-readout") != first


def test_everything_has_a_name_for_a_screen_reader(page: Browser):
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"combobox", "searchbox", "checkbox", "slider", "button", "image", "img", "table", "region"}
    asked = [node for node in nodes if node.get("role", {}).get("value") in roles and not node.get("ignored")]
    assert len(asked) > 30
    assert [node for node in asked if not node.get("name", {}).get("value")] == []


def test_dark_paper_and_a_narrow_screen(page: Browser):
    choose(page, "theme", "dark")
    assert page.run(COLOURS % "curve-plot")[DARK_BLUE] > 100
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run(COLOURS % "curve-plot")[BLUE] > 100, "on paper, dark lines on white"
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run(COLOURS % "curve-plot")[DARK_BLUE] > 100
    assert page.call("Page.printToPDF")["data"]
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=False)
    assert page.run("new Promise((done) => setTimeout(() => done(document.documentElement.scrollWidth), 500))") <= 360
    page.call("Emulation.clearDeviceMetricsOverride")


def test_the_view_is_in_the_address(page: Browser):
    choose(page, "curve-over", "tokens")
    page.call("Page.reload")
    reloaded = "performance.getEntriesByType('navigation')[0]?.type === 'reload'"
    page.wait(f"{reloaded} && document.documentElement?.dataset?.ready === 'true'")
    assert page.run("document.getElementById('curve-over').value") == "tokens"
    assert page.run("document.documentElement.dataset.theme") == "dark"


def test_pages_with_little_on_them(tmp_path: Path):
    """A sweep before its first step, and a single run."""
    write_sweep(tmp_path / "new", {"seed=1": ("running", None), "seed=2": ("not started", None)})
    write_run(tmp_path / "one", None, lines=1)
    with browser(tmp_path / "profile") as tab:
        for name, counts in (("new", "2 runs: 1 running, 1 not started"), ("one", "1 run: 1 unfinished")):
            succeed("compare", name, f"out={name}.html", cwd=tmp_path)
            tab.open(f"file://{tmp_path}/{name}.html")
            assert text(tab, "#counts") == counts
            assert tab.run("document.getElementById('reloading').hidden") is False
        assert tab.complaints == []
