"""The paper's experiments, each by one command: python -m benchmarks.reproduce --help."""
