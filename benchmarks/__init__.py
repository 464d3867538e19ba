"""What fastdraw gains, and against what: `pytest --benchmark` measures here."""
