"""The kernels behind fastdraw's operators: plain ATen, C++ for the CPU, Triton for CUDA. Nothing here is public."""
