"""What fastdraw gains, and against what: `pytest --benchmark` measures here, `make gpu` tests and measures on a GPU."""
