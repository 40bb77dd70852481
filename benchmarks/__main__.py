"""`python -m benchmarks NAME [--json]`."""

from benchmarks.cli import app

app(prog_name="python -m benchmarks")
