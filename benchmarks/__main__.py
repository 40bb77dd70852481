"""`python -m benchmarks NAME [--json]`."""

import sys

from benchmarks.cli import main

main(sys.argv[1:])
