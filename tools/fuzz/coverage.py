"""Feed one parser of `mutations.py` inputs that atheris (libFuzzer) guides by its coverage.

`python tools/fuzz/coverage.py --format study --count 100000`: the valid input is the corpus;
what reaches new code of ours is mutated further. Any exception but `BenchError` ends it with
a traceback and the input; so does an input that takes over `SLOW_SECONDS`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(include=["bench", "tomllib", "tarfile", "csv", "json"]):
    from mutations import targets

    from bench.errors import BenchError

SLOW_SECONDS = 5


def main() -> None:
    """Fuzz one format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", required=True)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="bench-fuzz-"))
    valid, parse = targets(folder)[chosen.format]
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "valid").write_bytes(valid)

    def once(content: bytes) -> None:
        try:
            parse(content)
        except BenchError:
            return

    words = [f"-runs={chosen.count}", f"-seed={chosen.seed}", f"-timeout={SLOW_SECONDS}"]
    more = ["-max_len=16384", f"-artifact_prefix={folder}/", "-rss_limit_mb=4096", str(corpus)]
    atheris.Setup([sys.argv[0], *words, *more], once)
    atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main()
