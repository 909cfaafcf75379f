"""Studies: one question, a base, and the variants that answer it, as a TOML file.

`schema` defines the file's keys, `file` reads one, `lines` finds the line of an error,
`expansion` expands a study into a `plan` of runs, each a `run_request` with a `recipe` (its hash
names the run's folder), and `growth` makes the requests of runs that start as another run's
network, made larger.

`bench.data` and `bench.networks` import torch, so functions here import them when they are called:
reading a study and a run's record stays fast.
"""

from bench.studies.expansion import Overrides, expand
from bench.studies.file import (
    ADHOC,
    adhoc_study,
    check_study,
    check_study_name,
    load_study,
    parse_study,
    shipped_costs,
    shipped_studies,
)
from bench.studies.plan import Plan, PlannedVariant
from bench.studies.schema import Study, json_schema

__all__ = [
    "ADHOC",
    "Overrides",
    "Plan",
    "PlannedVariant",
    "Study",
    "adhoc_study",
    "check_study",
    "check_study_name",
    "expand",
    "json_schema",
    "load_study",
    "parse_study",
    "shipped_costs",
    "shipped_studies",
]
