"""What `fastdraw profile` does: time, rates and memory of the operators and of the DRAW step on this machine."""
