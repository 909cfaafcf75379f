"""Pareto fronts by their definition."""

from __future__ import annotations

from bench.report.page.cost import pareto


def test_a_front_is_what_no_other_point_beats() -> None:
    points = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.5), (2.5, 0.8), (4.0, 0.9), (1.0, 0.4)]
    beaten = [
        (c, v)
        for c, v in points
        if any((d <= c and w >= v) and (d, w) != (c, v) for d, w in points)
    ]
    assert pareto(points) == sorted(set(points) - set(beaten))
    assert pareto([]) == []
