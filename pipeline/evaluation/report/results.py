"""What came out, in words: each model against its references, and against the others of its pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.evaluation.candidates import PUBLISHED
from pipeline.evaluation.chunks import ENSEMBLE, MEAN
from pipeline.evaluation.figures import field_style
from pipeline.evaluation.pieces import PairScores
from pipeline.evaluation.report.words import compared, in_brackets, known, percents, spread_in_words, titled
from pipeline.evaluation.tidy import SKILL, Row, TidyTable


def results(scores: Sequence[PairScores], table: TidyTable) -> Iterator[str]:
    """Give a sentence for each model, and one for the models of a pair together.

    A model with the paper's settings is a reference for the others, and has a sentence only if it is alone.
    """
    for one in scores:
        shown = [model.label for model in one.rivals.models if not model.published] or list(one.models)
        for label in shown:
            yield _result(table, one, label)
        if len(shown) > 1:
            yield _best(table, one, shown)


def references(one: PairScores, label: str) -> dict[str, str]:
    """Give what a model is compared with: what a column is called, and the name in the table of scores."""
    names = {name: name for name in (*one.baselines, MEAN)}
    others = [model for model in one.rivals.models if model.label != label]
    prior = next((model for model in others if model.published), None)
    if prior is not None:
        names[PUBLISHED] = prior.label
    rest = [model.label for model in others if model is not prior]
    return names | {f"another model{f' ({k + 1})' if k else ''}": name for k, name in enumerate(rest)}


def skill_over(table: TidyTable, one: PairScores, label: str, reference: str) -> Row:
    """Give a model's skill over a reference."""
    (row,) = table.all(one.rivals.pair, label, ENSEMBLE, SKILL, reference)
    return row


def _result(table: TidyTable, one: PairScores, label: str) -> str:
    pair = one.rivals.pair
    (crps,) = table.all(pair, label, ENSEMBLE, "fair_crps")
    skills = {name: skill_over(table, one, label, name) for name in one.baselines}
    hardest = min(skills, key=lambda name: skills[name].value)
    text = (
        f"{titled(pair, label)}: CRPS {crps.value:.3g} {crps.units}, {compared(skills[hardest])} that of "
        f"{field_style(hardest).title.lower()}, the hardest of the references, picked afterwards"
        f"{in_brackets(skills[hardest])}"
    )
    if (prior := references(one, label).get(PUBLISHED)) is not None:
        over = skill_over(table, one, label, prior)
        text += f", and {compared(over)} that with the paper's settings{in_brackets(over)}"
    spread = table.value(pair, label, ENSEMBLE, "spread_skill_ratio")
    return f"{text}; {spread_in_words(spread)}."


def _best(table: TidyTable, one: PairScores, labels: Sequence[str]) -> str:
    """Compare models of a pair."""
    pair = one.rivals.pair
    best = min(labels, key=lambda label: table.value(pair, label, ENSEMBLE, "fair_crps"))
    others = []
    for label in labels:
        if label != best:
            row = skill_over(table, one, best, label)
            sure = "" if row.low > 0 else ", undecided" if known(row) else ", without an interval"
            interval = f", {percents(row)}" if known(row) else ""
            others.append(f"{row.value:.1%} below that of {label}{interval}{sure}")
    return f"{pair}: {best} has the lowest CRPS: {'; '.join(others)}."
