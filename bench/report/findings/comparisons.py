"""The comparisons and contrasts of a study as rows of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.report.findings.statistics import Difference
    from bench.report.findings.summaries import ContrastSummary, VariantSummary
    from bench.store import StudyRecord


def comparison_rows(
    study: StudyRecord, summaries: Sequence[VariantSummary], contrasts: Sequence[ContrastSummary]
) -> list[dict[str, Any]]:
    """Return the rows of a study's `comparisons` table: test accuracies first, then training."""
    primary = study.primary or {}
    return [
        {
            "study": study.name,
            "test": study.test,
            "primary": primary.get("name") in (row.get("variant"), row.get("contrast"))
            and primary.get("accuracy") == accuracy,
            **row,
        }
        for accuracy in ("test", "train")
        for row in _rows(accuracy, summaries, contrasts)
        if accuracy == "test" or study.compare_training
    ]


def _rows(
    accuracy: str, summaries: Sequence[VariantSummary], contrasts: Sequence[ContrastSummary]
) -> Iterator[dict[str, Any]]:
    for s in summaries:
        if s.reference:
            found = s.difference if accuracy == "test" else s.train_difference
            names = {"comparison": f"{s.name} - {s.reference}", "variant": s.name}
            names["reference"] = s.reference
            yield {**names, "accuracy": accuracy, **_numbers(found, s.margin)}
    for c in contrasts:
        found = c.difference if accuracy == "test" else c.train_difference
        names = {"comparison": c.formula, "contrast": c.name}
        yield {**names, "accuracy": accuracy, **_numbers(found, c.margin)}


def _numbers(found: Difference | None, margin: float | None) -> dict[str, Any]:
    if found is None:
        return {"seeds": 0, "margin": margin}
    better = found.superiority
    return {
        "seeds": found.seeds,
        "difference": found.mean,
        "ci_low": found.low,
        "ci_high": found.high,
        "p_value": found.p_value,
        "significant": found.significant,
        "equivalent": None if margin is None else found.equivalent(margin),
        "doubt": found.doubt,
        "margin": margin,
        "level": found.level,
        "standard_deviation": found.deviation,
        "effect_size": found.effect_size,
        "detectable": found.detectable,
        "superiority": None if better is None else better.mean,
        "superiority_low": None if better is None else better.low,
        "superiority_high": None if better is None else better.high,
        "correlation": found.correlation,
    }
