import re
from html.parser import HTMLParser

import pytest

from pipeline.evaluation.candidates import Candidate
from pipeline.evaluation.report.charts import Charts, Picture
from pipeline.evaluation.report.html import Cell, table
from pipeline.evaluation.report.page import Page
from pipeline.evaluation.tidy import SKILL, TidyTable

PARTS = ("pairs", "calibration", "distributions", "neighbourhoods", "windows")
PNG, GIF = b"\x89PNG\r\n", b"GIF89a"


class Read(HTMLParser):
    """Keeps the elements of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.texts.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(filter(None, self.texts))


@pytest.fixture
def page(score, store):
    def page(*settings, notes=(), pictures=None, names=("one", "other")):
        scores = [score(*settings, names=names)]
        known = {part: [] for part in PARTS} | (pictures or {})
        found = TidyTable.of(scores, store.info)
        return Page(scores, found, store.info, "validation", notes, known, "seed: 0 # <b>"), found

    return page


def test_the_page_says_what_was_scored_and_how_well(page, store):
    made, rows = page(notes=["rain is <other> data"])
    read = Read(made.html())
    assert "rain: 2 models, 1 factor pair" in read.text
    assert "rain is <other> data" in read.text
    assert "seed: 0 # <b>" in read.text
    for label in ("one", "other"):
        crps = rows.one("4x2", label, "ensemble", "fair_crps")
        assert f"{crps.value:.4f} {crps.low:.4f} to {crps.high:.4f}" in read.text
        assert f"4x2, {label}: CRPS {crps.value:.3g} mm/h" in read.text
        spread = rows.value("4x2", label, "ensemble", "spread_skill_ratio")
        assert f"(spread / skill {spread:.2f})" in read.text
    ours = rows.one("4x2", "one", "ensemble", SKILL, "bicubic")
    assert f"{ours.value:.1%}{'*' * (ours.low > 0 or ours.high < 0)}" in read.text
    for text in (store.info.fingerprint, "doi:10.1002/qj.2270", "dpm_solver_pp_2m, 2 steps"):
        assert text in read.text
    for candidate in made.scores[0].rivals.models:
        assert candidate.saved.card["sha256"] in read.text


def test_the_page_says_what_the_scores_hold_for(page):
    text = Read(page()[0].html()).text
    assert "validation split, which training has not seen but by which tuning chose" in text
    assert "training and tuning have not seen" not in text
    assert "the hardest of the references, picked afterwards" in text
    assert "at least 10% of the cells of the last coarse frame are above 0.1 mm/h" in text
    assert "less certain than skills" in text
    everywhere = Read(page(("data.min_wet", 0))[0].html()).text
    assert "whether it rains in them or not" in everywhere


def test_a_pair_that_refines_time_is_drawn_in_time(page, store):
    made, rows = page(names=("one",))
    drawn = {one.name: one for one in Charts(made.scores, rows, store.info).distributions()}
    assert drawn.keys() == {"quantiles", "spectra", "temporal-spectra"}
    assert drawn["temporal-spectra"].content.startswith(b"\x89PNG")


@pytest.mark.parametrize("label", ["one", "other"])
def test_what_retuning_saves_of_the_error_with_the_paper_s_settings(page, store, monkeypatch, label):
    """Also where it saves nothing: one of the two is better, and each has its turn as the prior."""
    made, rows = page()
    (found,) = made.scores
    pair, (tuned,) = found.rivals.pair, {"one", "other"} - {label}
    assert "published" not in Charts(made.scores, rows, store.info).skill[pair]
    (rival,) = (model for model in found.rivals.models if model.label == label)
    monkeypatch.setattr(Candidate, "published", property(lambda self: self.label == rival.label))
    charts = Charts(made.scores, rows, store.info)
    assert charts.best[pair].label == tuned
    crps = {name: rows.value("4x2", name, "ensemble", "fair_crps") for name in ("one", "other")}
    saved = charts.skill[pair]["published"].value
    assert saved == 1 - crps[tuned] / crps[label]
    assert (saved > 0) == (crps[tuned] < crps[label])
    said = Read(made.html()).text
    assert "over the paper's settings" in said
    assert f"4x2, {tuned}: CRPS " in said
    assert f"and {abs(saved):.0%} {'below' if saved > 0 else 'above'} that with the paper's settings" in said
    assert f"4x2, {label}: CRPS " not in said  # a reference


def test_the_model_that_is_drawn_is_the_one_that_validation_chose(page, store):
    made, rows = page()
    assert Charts(made.scores, rows, store.info).best[made.scores[0].rivals.pair].validation_crps == 0.1


def test_the_page_needs_no_network_and_every_picture_says_what_it_shows(page):
    shown = {
        "pairs": [Picture("map", PNG, 'a "map"', "read it so")],
        "windows": [Picture("film", GIF, "a film", "same"), Picture("still", PNG, "a still", "same")],
    }
    made, _ = page(pictures=shown)
    read = Read(made.html())
    kinds = [image["src"].partition(";")[0] for image in read.all("img")]
    assert kinds == ["data:image/png", "data:image/gif", "data:image/png"]
    assert [image["alt"] for image in read.all("img")] == ['a "map"', "a film", "a still"]
    assert read.text.count("same") == 1 + read.text.count("the same")  # said of both pictures at once
    addresses = [value for _, known in read.elements for name, value in known.items()
                 if name in ("src", "href", "action")]  # fmt: skip
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert read.all("link") == []
    assert "@import" not in made.html()
    anchors = {known["id"] for _, known in read.elements if "id" in known}
    assert {link["href"].removeprefix("#") for link in read.all("a")} == anchors
    assert "viewport" in str(read.all("meta"))


def test_what_cannot_be_known_is_left_out(page):
    made, rows = page(("scoring.windows", 2), names=("one",))  # too few blocks for intervals
    text = Read(made.html()).text
    assert rows.one("4x2", "one", "ensemble", "fair_crps").blocks < 5
    assert not re.search(r"\bnan\b", text)
    assert "rain: 1 model, 1 factor pair" in text
    assert "lowest CRPS" not in text


def test_models_of_a_pair_are_compared_in_words(page):
    made, rows = page()
    text = Read(made.html()).text
    best, worse = sorted(
        ("one", "other"), key=lambda label: rows.value("4x2", label, "ensemble", "fair_crps")
    )
    row = rows.one("4x2", best, "ensemble", SKILL, worse)
    undecided = ", undecided" if row.low <= 0 else ""
    assert f"4x2: {best} has the lowest CRPS: {row.value:.1%} below that of {worse}" in text
    assert f"skill {row.low:.0%} to {row.high:.0%}{undecided}." in text


def test_a_table_is_sorted_by_numbers_not_by_how_they_are_written():
    written = table(["name", "score"], [["4x1 a", Cell("9.0e-10", "small <print>", 9e-10)], ["4x2 b", "<b>"]])
    assert 'data-value="9e-10"' in written
    assert '<th>name</th><th class="number">score</th>' in written
    assert "small &lt;print&gt;" in written
    assert "<td>&lt;b&gt;</td>" in written
    assert '<tr class="first"><td>4x2 b' in written
