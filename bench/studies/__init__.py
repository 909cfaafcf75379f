"""Studies: one question, a base, and the variants that answer it, as a TOML file.

`schema` says what a study may say, `file` reads one, `lines` finds the line of what is wrong,
`expansion` makes a `plan` of runs of it, and `growth` says which of them start as others, grown.
"""

from bench.studies.expansion import Overrides, expand
from bench.studies.file import StudyFile, adhoc_study, load_study, parse_study, shipped_studies
from bench.studies.plan import Plan, PlannedVariant
from bench.studies.schema import Study, Tune, json_schema

__all__ = [
    "Overrides",
    "Plan",
    "PlannedVariant",
    "Study",
    "StudyFile",
    "Tune",
    "adhoc_study",
    "expand",
    "json_schema",
    "load_study",
    "parse_study",
    "shipped_studies",
]
