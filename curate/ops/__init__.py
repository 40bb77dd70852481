"""Pure functions on arrays: no I/O, no global state, seeds from arguments only."""
