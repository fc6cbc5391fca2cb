"""The page of `beam-cifar report` in a real browser: what is laid out, and what is asked for.

Screenshots go to the folder that `BEAM_CIFAR_SCREENSHOTS` names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from beam_cifar import make_sample
from beam_cifar.report.build import report
from tests.helpers.browser import Browser, find_browser
from tests.helpers.image_trees import batch, encoded, picture, quickly, write_cifar, write_tree

WIDTHS = (1280, 390)
PAGES = ("ten", "hundred", "thousand", "hostile", "sizes", "one", "nothing", "output")

# Elements with text of their own whose box, or a box around them that cuts, does not hold it; those only for screen
# readers, and what can be scrolled to, apart.
CLIPPED = """(() => {
  const found = [], range = document.createRange();
  for (const element of document.querySelectorAll('body *')) {
    if (element.closest('.vh, .wide thead') || !element.checkVisibility()) continue;
    for (const text of element.childNodes) {
      if (text.nodeType != Node.TEXT_NODE || !text.data.trim()) continue;
      range.selectNodeContents(text);
      for (const box of range.getClientRects()) {
        for (let around = element; around && !around.matches('.scroll'); around = around.parentElement) {
          const style = getComputedStyle(around), outer = around.getBoundingClientRect();
          const cuts = around == document.body || style.overflowX != 'visible' || style.textOverflow == 'ellipsis';
          if (cuts && (box.left < outer.left - 1 || box.right > outer.right + 1 || box.bottom > outer.bottom + 1))
            found.push(`${around.tagName}.${around.className}: ${text.data.slice(0, 60)}`);
        }
      }
    }
  }
  return found;
})()"""

# Texts that lie over other texts.
OVERLAPS = """(() => {
  const boxes = [], range = document.createRange(), found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; text = walker.nextNode();) {
    const element = text.parentElement;
    if (!text.data.trim() || element.closest('.vh, .scroll, .wide thead') || !element.checkVisibility()) continue;
    range.selectNodeContents(text);
    for (const box of range.getClientRects()) boxes.push([box, text]);
  }
  boxes.sort((a, b) => a[0].top - b[0].top);
  for (let i = 0; i < boxes.length; i++)
    for (let j = i + 1; j < boxes.length && boxes[j][0].top < boxes[i][0].bottom - 4; j++) {
      const [a, one] = boxes[i], [b, two] = boxes[j];
      if (one != two && a.left < b.right - 2 && b.left < a.right - 2 && b.bottom > a.top + 4)
        found.push(`${one.data.slice(0, 40)} / ${two.data.slice(0, 40)}`);
    }
  return found;
})()"""

SMALLEST_FONT = """Math.min(...[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&
  [...e.childNodes].some(n => n.nodeType == Node.TEXT_NODE && n.data.trim()))
  .map(e => parseFloat(getComputedStyle(e).fontSize)))"""

# The lowest contrast of a text with what is behind it, as WCAG 2 counts it.
LOWEST_CONTRAST = """(() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let lowest = 21;
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(n => n.nodeType == Node.TEXT_NODE && n.data.trim());
    if (!own || element.closest('.vh') || !element.checkVisibility()) continue;
    let around = element;
    while (getComputedStyle(around).backgroundColor == 'rgba(0, 0, 0, 0)') around = around.parentElement;
    const a = light(getComputedStyle(element).color), b = light(getComputedStyle(around).backgroundColor);
    lowest = Math.min(lowest, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return lowest;
})()"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of very different sets."""
    folder = tmp_path_factory.mktemp("pages")
    make_sample(str(folder / "ten"), kind="cifar10", images=3000, seed=1)
    make_sample(str(folder / "hundred"), kind="cifar100", images=3000, seed=1)
    rows = 1300
    content = batch([f"{row}.png" for row in range(rows)], [row**2 % 1000 for row in range(rows)])
    write_cifar(folder / "thousand", {"train": content}, [f"n{number:08} some animal" for number in range(1000)])
    _write_hostile(folder / "hostile")
    sides = np.random.default_rng(0).integers(9, 500, (60, 2)).tolist()
    files = {f"class {row % 2}/{row}.jpg": encoded(picture(row, *side), "JPEG") for row, side in enumerate(sides)}
    write_tree(folder / "sizes", files)
    write_cifar(folder / "one", {"train": batch(["only.png"], [1])})
    nothing = batch(["a.png", "b.png"], [0, None])
    del nothing["data"]
    write_cifar(folder / "nothing", {"train": nothing})
    remaps = ("cat:a name / that had to change",)
    quickly(folder / "ten", folder / "output", "imagenet_with_subset_dirs", labels=("cat", "dog"), remaps=remaps)
    for name in PAGES:
        report(str(folder / name), str(folder / f"{name}.html"), workers=1)
    return {name: folder / f"{name}.html" for name in PAGES}


def _write_hostile(folder: Path) -> None:
    names = [
        "<script>document.title='broken'</script>",
        "Собака служебная поисково-спасательная",
        "a" * 300,
        "שלום עולם",
    ]
    names += [
        "\"quoted\" & 'single'",
        "line\nbreak\u202eevil",
        "many words " * 30,
        "",
        "<img src=https://example.org/x>",
    ]
    train = batch([f"<b>{row}" if row % 3 else "и" * 90 + str(row) for row in range(40)],
                  [None if row % 7 == 0 else row % 9 for row in range(40)])  # fmt: skip
    test = batch([f"t{row}" for row in range(10)], [row % 9 for row in range(10)], seed=3)
    train["data"][5] = train["data"][20] = test["data"][2] = train["data"][3]
    long = "<style>*{display:none}<b>" + "q" * 60
    write_cifar(folder, {"data_batch_1": train, "test_batch": test, long: batch(["z"], [1], seed=9)}, names)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = find_browser()
    if path is None:
        pytest.fail("no Chromium on the path; make test-browser installs one")
    with Browser(path, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("name", PAGES)
def test_the_page_fits_its_window(browser: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    browser.open(pages[name], width)
    _photograph(browser, f"{name}-{width}")
    browser.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(CLIPPED) == []
    assert browser.evaluate(OVERLAPS) == []
    assert browser.evaluate(SMALLEST_FONT) >= 13


@pytest.mark.parametrize("name", PAGES)
def test_the_page_asks_for_nothing_and_runs_nothing(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name], 1280)
    assert browser.requests == [pages[name].as_uri()]
    assert browser.complaints == []
    assert browser.evaluate("document.title") == name
    assert browser.evaluate("document.scripts.length") == 0
    assert browser.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_are_readable_by_day_and_night(browser: Browser, pages: dict[str, Path], dark: bool) -> None:
    for name in ("hostile", "output"):
        browser.open(pages[name], 1280, dark=dark)
        _photograph(browser, f"{name}-{'dark' if dark else 'light'}")
        assert (browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)") == dark
        assert browser.evaluate(LOWEST_CONTRAST) >= 4.5


def test_the_policy_forbids_what_a_page_may_not_do(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    text = pages["one"].read_text("utf-8")
    broken.write_text(
        text.replace("<footer>", "<script>document.title='ran'</script><img src='x.png'><footer>"), "utf-8"
    )
    browser.open(broken, 1280)
    assert browser.evaluate("document.title") == "one"
    assert sum("Content Security Policy" in complaint for complaint in browser.complaints) == 2


def test_paper_shows_dark_text_on_white(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ten"], 720, dark=True, paper=True)
    _photograph(browser, "ten-paper")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.evaluate("document.documentElement.scrollWidth") <= 720
    assert browser.evaluate(LOWEST_CONTRAST) >= 4.5


def test_pictures_of_few_pixels_stay_sharp(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["ten"], 1280)
    facts = "[...document.images].map(e => `${getComputedStyle(e).imageRendering} ${e.width} ${e.naturalWidth}`)"
    assert set(browser.evaluate(facts)) == {"pixelated 64 32"}


def _photograph(browser: Browser, name: str) -> None:
    if folder := os.environ.get("BEAM_CIFAR_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.screenshot(Path(folder) / f"{name}.png")
