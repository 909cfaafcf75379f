"""Who used the processor: this process with its children, or others."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from bench.system.processor_use import read_processor_use

BURN = "import time\nwhile time.process_time() < {}: pass\nprint(flush=True)\ninput()"


@pytest.mark.skipif(sys.platform != "linux", reason="others do not count children that have ended")
def test_what_children_use_is_our_own_also_when_they_have_ended() -> None:
    """Seconds of CPU time, which do not depend on what else runs."""
    before = read_processor_use()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    with subprocess.Popen(
        [sys.executable, "-c", BURN.format(1.0)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        running = read_processor_use()
        child.communicate(b"\n")
    ended = read_processor_use()
    for after in (running, ended):
        assert 1.1 < after.own - before.own < 1.9  # the child's second is counted once
        assert after.busy - before.busy > 0.5
