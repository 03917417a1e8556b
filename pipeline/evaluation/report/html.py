"""A report as one HTML file that needs no network: headings, paragraphs, sortable tables, pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem 1.2rem 4rem; color: #1b1f24; background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .4rem 0 .2rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .4rem; padding-top: .6rem; border-top: 1px solid #d5dae0; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
p, figcaption, .note { max-width: 50rem; }
.lead { color: #4a535e; margin-top: 0; }
.note { border-left: 3px solid #d55e00; padding: .2rem .8rem; margin: .6rem 0; }
nav a { margin-right: 1rem; white-space: nowrap; }
a { color: #0057a3; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .28rem .5rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e4e8ec; }
th { border-bottom: 2px solid #8a949e; vertical-align: bottom; }
th.number, td.number { text-align: right; }
td.number, td:first-child { white-space: nowrap; }
tr.first td { border-top: 2px solid #c3cad1; }
tbody tr:hover td { background: #f5f8fb; }
.sortable th { cursor: pointer; }
.sortable th[data-order]::after { content: " \\25B2"; font-size: .7em; }
.sortable th[data-order="-1"]::after { content: " \\25BC"; }
.sortable th:first-child, .sortable td:first-child { position: sticky; left: 0; background: #fff; }
.words td { overflow-wrap: anywhere; }
.words td:first-child { white-space: normal; overflow-wrap: normal; }
td small { display: block; color: #5b6570; }
figure { margin: 1rem 0 1.6rem; }
figure img { max-width: 100%; height: auto; border: 1px solid #e4e8ec; }
figcaption { color: #4a535e; font-size: .92rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; background: #f5f7f9; padding: .7rem .9rem; font-size: .82rem; line-height: 1.4; }
@media (max-width: 40rem) { body { padding: .6rem .7rem 3rem; font-size: 15px; } h1 { font-size: 1.3rem; }
  .sortable td:first-child { white-space: normal; min-width: 6.5rem; } figure img { max-width: 44rem; } }
@media print { details { display: block; } .wide { overflow: visible; } }
"""

_SORT = """
document.querySelectorAll("table.sortable th").forEach(function (head) {
  head.addEventListener("click", function () {
    var table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    var order = head.dataset.order === "1" ? -1 : 1;
    table.querySelectorAll("th").forEach(function (other) { delete other.dataset.order; });
    head.dataset.order = order;
    function key(row) { var cell = row.cells[column]; return cell.dataset.value || cell.textContent; }
    Array.from(body.rows).sort(function (a, b) {
      var x = key(a), y = key(b), gap = parseFloat(x) - parseFloat(y);
      return order * (isNaN(gap) ? x.localeCompare(y) : gap);
    }).forEach(function (row) { body.appendChild(row); });
  });
});
"""


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes
    ----------
    text : str
    small : str
        Below it, such as an interval.
    value : float, optional
        What it is sorted by; none: its text.
    strong : bool
    """

    text: str
    small: str = ""
    value: float | None = None
    strong: bool = False

    def html(self) -> str:
        """Write it."""
        by = "" if self.value is None else f' class="number" data-value="{self.value!r}"'
        small = f"<small>{escape(self.small)}</small>" if self.small else ""
        text = f"<strong>{escape(self.text)}</strong>" if self.strong else escape(self.text)
        return f"<td{by}>{text}{small}</td>"


def table(heads: Sequence[str], rows: Sequence[Sequence[Cell | str]], *, words: bool = False) -> str:
    """Write a table; one of numbers is sorted by a click on a head.

    Parameters
    ----------
    heads : sequence of str
    rows : sequence of sequences of Cell or str
        Rows whose first cells begin with the same word belong together.
    words : bool
        It holds sentences: not sortable, long words are broken.
    """
    grid = [[one if isinstance(one, Cell) else Cell(one) for one in row] for row in rows]
    numbers = {i for row in grid for i, one in enumerate(row) if one.value is not None}
    number = ' class="number"'
    head = "".join(f"<th{number if i in numbers else ''}>{escape(one)}</th>" for i, one in enumerate(heads))
    body, group = [], None
    for row in grid:
        word = row[0].text.partition(" ")[0]
        first = ' class="first"' if not words and group not in (None, word) else ""
        group = word
        body.append(f"<tr{first}>{''.join(cell.html() for cell in row)}</tr>")
    kind, lines = "words" if words else "sortable", "\n".join(body)
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody></table></div>"
    )


def figure(content: bytes, alt: str, caption: str) -> str:
    """Embed a picture.

    Parameters
    ----------
    content : bytes
        PNG or GIF.
    alt : str
        What it shows, for who cannot see it.
    caption : str
        How it is read; may be empty.
    """
    kind = "gif" if content.startswith(b"GIF8") else "png"
    data = base64.b64encode(content).decode()
    return (
        f'<figure><div class="wide"><img src="data:image/{kind};base64,{data}" alt="{escape(alt)}"></div>'
        f"{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"
    )


def paragraph(text: str, kind: str = "") -> str:
    """Write a paragraph; `kind`: lead, or note for what a reader must not overlook."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def folded(summary: str, content: str) -> str:
    """Put something long behind a line that opens it."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def verbatim(text: str) -> str:
    """Write text as it is, such as a configuration."""
    return f"<pre>{escape(text)}</pre>"


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes
    ----------
    title : str
    content : str
        HTML.
    """

    title: str
    content: str

    @property
    def anchor(self) -> str:
        """What a link to it ends with."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def document(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Put a report together.

    Parameters
    ----------
    title, lead : str
        The lead is what it is about in a sentence or two.
    sections : sequence of Section
    """
    links = "\n".join(f'<a href="#{one.anchor}">{escape(one.title)}</a>' for one in sections)
    parts = "\n".join(
        f'<section><h2 id="{one.anchor}">{escape(one.title)}</h2>\n{one.content}\n</section>'
        for one in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{paragraph(lead, "lead")}
<nav>
{links}
</nav>
{parts}
<script>{_SORT}</script>
</body>
</html>
"""
