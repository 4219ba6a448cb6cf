from __future__ import annotations

import base64
import io
import re
import sys
from collections import Counter
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from optimized import CLASSES, RESULT, make_answers, make_result, make_test, missed
from PIL import Image

from rlprune.errors import DataError
from rlprune.optimization.reports import page as page_module
from rlprune.optimization.reports.page import render, write_page
from rlprune.optimization.result import ClassCost, OptimizeResult

VOID = {"meta", "img", "br", "hr", "input", "link"}
TEST = make_test()
SHARES, LABELS = make_answers(TEST)


class Page(HTMLParser):
    """What a page holds: its elements with their attributes, and its text; tags must close in their order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def plotted() -> None:
    """Let a test make pages with plots."""


def page_of(result: OptimizeResult) -> Page:
    return Page(render(result, TEST, SHARES, LABELS))


@pytest.fixture(scope="module")
def text() -> str:
    """The page of the result, with all its plots."""
    return render(RESULT, TEST, SHARES, LABELS)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(autouse=True)
def without_plots(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Pages that tests make for themselves have no plots, which take a second, unless they ask for them."""
    if "plotted" in request.fixturenames:
        return
    monkeypatch.setattr(page_module, "_plots", lambda result: [])
    monkeypatch.setattr(page_module, "_histogram", lambda shares, correct: None)


def test_it_holds_goal_sentences_and_what_to_deploy(page: Page) -> None:
    for said in (RESULT.goal.text, *RESULT.sentences, "Goal reached", "Deploy dynamic", *RESULT.check.lines):
        assert said in page.text
    assert "What stands in the way" not in page.text
    assert RESULT.check.warnings[0] in page.text and "about 3,100" in page.text


def test_every_row_is_in_the_table_and_the_deployed_one_is_marked(page: Page, text: str) -> None:
    (row,) = re.findall(r'<tr role="row" class="deployed">.*?</tr>', text, re.DOTALL)
    cells = [" ".join(re.sub(r"<[^>]+>", "", cell).split()) for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
    assert cells == [
        "92.17 (90.0 to 94.1)",
        "0.33 (-0.44 to 1.11)",
        "42.0",
        "0.840 (0.815 to 0.874)",
        "2.12 ×",  # noqa: RUF001
        "✓ yes",
    ]
    assert text.count('class="yes"><span aria-hidden="true">✓</span> yes') == sum(row.meets for row in RESULT.rows) == 1
    for row_of in RESULT.rows:
        assert row_of.title in page.text
    assert "rlprune int8 left out: its accuracy on the validation images falls by 7.2 points" in page.text


def test_what_was_missed_is_said_with_what_would_help() -> None:
    made = page_of(missed())
    for said in ("Goal not reached", "Leave it as it is", "What stands in the way", *missed().advice):
        assert said in made.text
    assert "stay with it" in made.text and "Deploy dynamic" not in made.text


def test_it_needs_no_network_and_no_script(page: Page, text: str) -> None:
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    addresses = [
        value for _, each in page.elements for name, value in each.items() if name in ("src", "href", "action")
    ]
    assert addresses and all(address.startswith("data:image/png;base64,") for address in addresses)
    inside = [value for _, each in page.elements for name, value in each.items() if name == "xlink:href"]
    assert inside and all(value.startswith("#") for value in inside)
    assert "url(http" not in text and "@import" not in text and "@font-face" not in text
    assert not [name for _, each in page.elements for name in each if name.startswith("on")]


def test_people_who_hear_it_hear_all_of_it(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}] and page.text.count("resnet20") > 0
    assert "width=device-width" in next(each["content"] for each in page.all("meta") if each.get("name") == "viewport")
    assert page.all("img") and all(each["alt"] for each in page.all("img"))
    assert all(each.get("scope") in ("row", "col") for each in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption")) == 2
    plots = [each["aria-label"] for each in page.all("div") if each.get("role") == "img"]
    assert len(plots) == len(page.all("svg")) == 3 and all(len(label) > 40 for label in plots)
    assert all(each["aria-hidden"] == "true" for each in page.all("svg"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in pairwise(levels))


def test_every_name_of_an_element_is_its_own_and_every_reference_leads_to_one(page: Page, text: str) -> None:
    ids = Counter(each["id"] for _, each in page.elements if "id" in each)
    assert max(ids.values()) == 1
    pointed = set(re.findall(r'(?:xlink:href="#|url\(#|aria-labelledby=")([^")]+)', text))
    assert pointed and pointed <= set(ids)


def test_colours_are_the_pages_own_in_both_themes(text: str) -> None:
    body = text[text.index("<body>") :]
    assert not re.findall(r"#[0-9a-f]{6}\b", body)
    used = set(re.findall(r"var\(--([a-z-]+)\)", text))
    (light, dark) = re.findall(r":root \{(.*?)\}", text, re.DOTALL)[:2]
    for theme in (light, dark):
        assert used - {"of"} <= set(re.findall(r"--([a-z-]+):", theme))
    assert "@media print" in text and "prefers-color-scheme: dark" in text


NASTY = "</title><script>alert(1)</script>{{ 7 * 7 }}"


def test_nothing_that_a_user_named_is_markup(page: Page, text: str) -> None:
    classes = (NASTY, *CLASSES[1:])
    check = replace(RESULT.check, network=NASTY, data=NASTY, preprocessing=NASTY, lines=(NASTY,), warnings=(NASTY,))
    costs = (replace(RESULT.classes[0], name=NASTY), *RESULT.classes[1:])
    result = make_result(check=check, classes=costs, sentences=(NASTY,), left_out={NASTY: NASTY}, deploy_file=NASTY)
    made = render(replace(result, plan={NASTY: 1.0}), replace(TEST, classes=classes), SHARES, LABELS)
    assert Page(made).all("script") == [] and "49" not in Page(made).all("title")
    assert made.count("{{ 7 * 7 }}") >= 10
    assert '<b>&"' in page.text and '<b>&"' not in text
    assert all("<b>" not in unescape(each["src"]) for each in page.all("img"))


def test_pictures_are_those_that_the_result_names(page: Page) -> None:
    sources = [each["src"].partition(",")[2] for each in page.all("img")]
    assert len(sources) == len(RESULT.easiest) + len(RESULT.hardest)
    shown = Image.open(io.BytesIO(base64.b64decode(sources[0])))
    first = RESULT.easiest[0]
    assert torch.equal(
        torch.frombuffer(bytearray(shown.tobytes()), dtype=torch.uint8).view(32, 32, 3).permute(2, 0, 1),
        TEST.images[first],
    )
    assert page.all("img")[0]["alt"].startswith(f"test image {first}: {TEST.classes[int(TEST.labels[first])]}, ")


@pytest.mark.parametrize(("shape", "mode", "size"), [((1, 28, 20), "L", (20, 28)), ((3, 400, 200), "RGB", (80, 160))])
def test_grey_and_large_pictures(shape: tuple[int, int, int], mode: str, size: tuple[int, int]) -> None:
    data = make_test(20, shape)
    shares, labels = make_answers(data)
    made = Page(render(make_result(easiest=(0,), hardest=(19,)), data, shares, labels))
    shown = Image.open(io.BytesIO(base64.b64decode(made.all("img")[1]["src"].partition(",")[2])))
    assert (shown.mode, shown.size) == (mode, size)


def test_of_many_classes_the_cheapest_and_the_dearest_are_shown() -> None:
    costs = tuple(
        ClassCost(name=f"class {n}", n_images=1, accuracy=1.0, dense_accuracy=1.0, macs_share=0.001 * n)
        for n in range(1000)
    )
    made = page_of(make_result(classes=costs))
    shown = [int(n) for n in re.findall(r"class (\d+) ", made.text)]
    assert shown == [*range(999, 979, -1), *range(19, -1, -1)]
    assert "the 40 dearest and cheapest of 1000" in made.text


def test_without_matplotlib_it_says_what_is_missing(plotted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    made = page_of(RESULT)
    assert made.all("svg") == [] and "install it with: pip install 'rlprune[plots]'" in made.text
    assert all(row.title in made.text for row in RESULT.rows)


def test_what_little_there_may_be_is_enough(plotted: None) -> None:
    few = make_result(
        rows=RESULT.rows[:1], points=(), classes=(), easiest=(), hardest=(), deploy_row="nothing", plan={}
    )
    made = page_of(replace(few, deploy="dense", left_out={}, n_needed=None))
    assert len(made.all("svg")) == 2 and made.all("img") == []
    assert "these are enough" in made.text


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_page(tmp_path / "new" / "report.html", RESULT, TEST, SHARES, LABELS)
    written = tmp_path / "new" / "report.html"
    before = written.read_text(encoding="utf-8")
    assert Page(before).text.startswith("resnet20: goal reached")
    with pytest.raises(DataError, match="600 test images, 600 shares and 599 answers; give one for each"):
        write_page(written, RESULT, TEST, SHARES, LABELS[:-1])
    with pytest.raises(DataError, match="names test image 600; there are 600"):
        write_page(written, make_result(hardest=(600,)), TEST, SHARES, LABELS)
    assert written.read_text(encoding="utf-8") == before


def test_half_a_character_in_a_name_is_written_as_a_question_mark(tmp_path: Path) -> None:
    check = replace(RESULT.check, data="pictures\udcff/")
    write_page(tmp_path / "report.html", make_result(check=check), TEST, SHARES, LABELS)
    assert "pictures?/" in (tmp_path / "report.html").read_text(encoding="utf-8")


def luminance(colour: str) -> float:
    """Relative luminance of sRGB, as WCAG has it."""
    full = colour * 2 if len(colour) == 3 else colour
    values = [int(full[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_and_lines_stand_out_from_what_is_behind_them(text: str, theme: int) -> None:
    style = re.findall(r":root \{(.*?)\}", text, re.DOTALL)[theme]
    colours = {name: luminance(value) for name, value in re.findall(r"--([a-z-]+): #([0-9a-f]{3,6})", style)}

    def contrast(a: str, b: str) -> float:
        low, high = sorted((colours[a], colours[b]))
        return (high + 0.05) / (low + 0.05)

    on = {"card": "ink muted good bad static", "page": "ink muted", "soft": "ink muted", "good-soft": "ink muted good"}
    on |= {"bad-soft": "bad", "warn-soft": "ink", "good": "card", "ink": "card"}
    poor = {(a, b): contrast(a, b) for b, names in on.items() for a in names.split() if contrast(a, b) < 4.5}
    assert poor == {}
    assert min(contrast(line, "card") for line in ("dynamic", "static", "cascade", "dense", "good")) >= 3
