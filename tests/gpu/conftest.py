from __future__ import annotations

import sys
from pathlib import Path

# The protocol is run as a folder (`python -P tests/gpu`), which puts that folder on the path.
sys.path.append(str(Path(__file__).parent))
