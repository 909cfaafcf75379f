"""Who used the processor: this process with its children, or others."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.system.processor_use import read_processor_use, share_of_others

BURN = "import time\nwhile time.process_time() < {}: pass"


def test_what_children_used_is_our_own_also_when_they_have_ended() -> None:
    before = read_processor_use()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    subprocess.run([sys.executable, "-c", BURN.format(0.3)], check=True)
    ended = read_processor_use()
    own = ended.own - before.own
    assert 0.45 < own < 0.8  # seconds, of which the child's are counted once
    assert ended.busy - before.busy > 0.9 * own
    with subprocess.Popen([sys.executable, "-c", BURN.format(60)]) as running:
        try:
            while read_processor_use().own - ended.own < 0.3:
                assert running.poll() is None
        finally:
            running.kill()
    assert share_of_others(before, read_processor_use()) < 1
