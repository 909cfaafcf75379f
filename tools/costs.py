"""Write what `bench list studies` says of the cost of the shipped studies: `ablations/costs.json`.

    python tools/costs.py

A study's cost is the multiply-adds of all its trainings. Run this when a study is added or changed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench.launch.planning import training_macs
from bench.studies import load_study, shipped_studies

FILE = Path(__file__).parents[1] / "ablations" / "costs.json"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    costs = {name: training_macs(load_study(name).expand()) for name in shipped_studies()}
    FILE.write_text(json.dumps(costs, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
