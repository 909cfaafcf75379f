"""Run the protocol: `python -P tools/gpu`, which is what `nox -s gpu` does."""

import sys

from protocol import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
