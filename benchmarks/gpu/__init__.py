"""What a machine with a GPU is asked, in two calls of at most ten minutes each: `benchmarks.gpu figures` and `train`."""
