"""`python -m benchmarks.tune`: other tiles for Triton's kernels, tried on a device."""
