"""A model of time: microseconds of every launch of a step, predicted from its machine code. See docs/gpu.md."""
