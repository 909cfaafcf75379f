"""Run the studies whose declared runs are not all published, one after the other, into one folder.

    nohup python tools/experiments.py --results FOLDER > experiments.log 2>&1 &

It can be stopped (SIGTERM, Ctrl-C) and started again at any time: what is complete is not trained
again, and what was begun resumes. Each study's file says how long it takes on two cores, and what
was declared beforehand; nothing is looked at before all of its runs have ended. Finished runs can
be taken to another machine, without their weights:
`tar cJf RUNS.tar.xz --exclude model.safetensors --exclude '*.partial' -C FOLDER runs`.
`tools/begun` has those of studies that are not complete (`tar xJf RUNS.tar.xz -C FOLDER`).
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys

STUDIES = ("orders-56",)
HOW = ("--workers", "2", "--threads", "1")  # two runs at a time, one thread each
FINISHED = {0, 1}  # 1: some runs failed, and are recorded as such


def commands(results: str, *more: str) -> list[list[str]]:
    """Return the command of each study."""
    return [
        ["bench", "run-ablation", name, "--results", results, "--quiet", *HOW, *more]
        for name in STUDIES
    ]


def run(command: list[str]) -> int:
    """Run a command, pass a request to stop on to it, and wait until it has saved its state."""
    signals = (signal.SIGINT, signal.SIGTERM)
    # In a session of its own: Ctrl-C then reaches it once, from here.
    with subprocess.Popen(command, start_new_session=True) as process:
        before = [signal.signal(s, lambda number, _: process.send_signal(number)) for s in signals]
        code = process.wait()
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    return code


def main(*words: str) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", required=True, help="one folder for all studies")
    parser.add_argument("--dry-run", action="store_true", help="estimate the time of each only")
    options = parser.parse_args(words)
    for command in commands(options.results, *(["--dry-run"] if options.dry_run else [])):
        print(" ".join(command), flush=True)
        code = run(command)
        if code not in FINISHED:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
