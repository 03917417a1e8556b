"""Descriptions of runs and experiments in markdown, as the MLflow UI shows them, with links between pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import quote

from pipeline.mlflow_view.views import EVALUATIONS, VALUES, page_of_run, page_of_view

NOTE = "mlflow.note.content"
"""Tag of a run or an experiment that the UI shows as its description, in markdown."""

_LINK = re.compile(r"\[(?P<text>[^\]\n]*)\]\((?P<kind>run|view|model):(?P<name>[^)\s]+)\)")


def linked(markdown: str, experiment_id: str, run_id: Callable[[str], str | None]) -> str:
    """Make links of `[text](run:KEY)`, `[text](view:KEY)` and `[text](model:NAME)`.

    `view:KEY#charts` leads to the charts of a view.

    Parameters
    ----------
    markdown : str
    experiment_id : str
    run_id : callable
        Gives MLflow's id of a run by its key; None: there is no such run, and the text stays without a link.
    """

    def link(found: re.Match[str]) -> str:
        text, name = found["text"], found["name"]
        if found["kind"] == "model":
            return f"[{text}](#/models/{quote(name, safe='')})"
        if found["kind"] == "view":
            key, _, mode = name.partition("#")
            return f"[{text}]({page_of_view(experiment_id, key, charts=mode == 'charts')})"
        there = run_id(name)
        return f"[{text}]({page_of_run(experiment_id, there)})" if there else text

    return _LINK.sub(link, markdown)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out as a markdown table; the UI leaves no room between columns, so hard spaces do."""
    padded = [[f"{cell.replace('|', '/')}&nbsp;&nbsp;&nbsp;" for cell in line] for line in (heads, *rows)]
    padded.insert(1, ["---"] * len(heads))
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


_KINDS = (
    ("`sweep NAME`", "the tuning of several pairs; its description holds the best values per pair"),
    ("`4x2 study`", "the tuning of one pair, with the tuned model; its trials lie inside"),
    ("`4x2 trial 07 ...`", "one setting, scored on validation windows (KILLED: pruned)"),
    ("`4x2 rival ...`", "a setting that the tuned one is compared with"),
    ("`4x2 final`", "the training of a pair's final model"),
    ("`evaluation ...`", "an evaluation of finished models; its artifacts hold `report.html`"),
    ("`4x2 evaluated ...`", "the scores of one model in it"),
)
INTRODUCTION = (
    f"{VALUES.name}, and how sure: see the [table of tuned pairs and final models](view:{VALUES.key}) with "
    f"their scores on held-out data ([charts](view:{VALUES.key}#charts)), and the "
    f"[evaluated models](view:{EVALUATIONS['test'].key}).\n\n{table(('run', 'is'), _KINDS)}"
)
"""What an experiment's page says about its runs."""
