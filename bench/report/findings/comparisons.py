"""The comparisons and contrasts of a study as rows of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.findings.summaries import ContrastSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.findings.agreement import Agreement
    from bench.report.findings.statistics import Difference
    from bench.report.findings.summaries import VariantSummary
    from bench.store import StudyRecord


def comparison_rows(
    study: StudyRecord,
    summaries: Sequence[VariantSummary],
    contrasts: Sequence[ContrastSummary],
    agreement: Agreement,
) -> list[dict[str, Any]]:
    """Return the rows of a study's `comparisons` table: test accuracies first, then training."""
    primary = study.primary or {}
    compared: list[VariantSummary | ContrastSummary] = [
        *(s for s in summaries if s.reference),
        *contrasts,
    ]
    return [
        {
            "study": study.name,
            "test": study.test,
            "primary": (primary.get("name"), primary.get("accuracy")) == (one.name, accuracy),
            **_names(one),
            "accuracy": accuracy,
            **_numbers(one.difference if accuracy == "test" else one.train_difference, one.margin),
            **(_on_test_images(one, agreement) if accuracy == "test" else {}),
        }
        for accuracy in (("test", "train") if study.compare_training else ("test",))
        for one in compared
    ]


def _names(one: VariantSummary | ContrastSummary) -> dict[str, Any]:
    if isinstance(one, ContrastSummary):
        return {"comparison": one.formula, "contrast": one.name}
    name = f"{one.name} - {one.reference}"
    return {"comparison": name, "variant": one.name, "reference": one.reference}


def _numbers(found: Difference | None, margin: float | None) -> dict[str, Any]:
    if found is None:
        return {"seeds": 0, "margin": margin}
    better = found.superiority
    low, high = found.possible or (None, None)
    needed = found.seeds_needed if found.verdict(margin) == "undecided" else None
    fewest, most = needed or (None, None)
    return {
        "seeds": found.seeds,
        "difference": found.mean,
        "ci_low": low,
        "ci_high": high,
        "p_value": found.p_value,
        "significant": found.significant,
        "equivalent": None if margin is None else found.equivalent(margin),
        "doubt": found.doubt,
        "margin": margin,
        "level": found.level,
        "standard_deviation": found.deviation,
        "effect_size": found.effect_size,
        "seeds_needed_low": fewest,
        "seeds_needed_high": most,
        "detectable": found.detectable,
        "superiority": None if better is None else better.mean,
        "superiority_low": None if better is None else better.low,
        "superiority_high": None if better is None else better.high,
        "correlation": found.correlation,
    }


def _on_test_images(
    one: VariantSummary | ContrastSummary, agreement: Agreement
) -> dict[str, float | None]:
    _, low, high = agreement.new_images.get(one.name, (None, None, None))
    numbers = {"new_images_low": low, "new_images_high": high}
    if isinstance(one, ContrastSummary):
        return numbers
    return {
        **numbers,
        "discordant": agreement.rates.get(one.name),
        "discordant_seeds": agreement.among_seeds.get(one.reference or ""),
    }
