"""`python -m magi_world`: the command line, where the script `magi-world` is not on the path."""

import sys

from magi_world.demos.cli import main

if __name__ == "__main__":
    sys.exit(main())
