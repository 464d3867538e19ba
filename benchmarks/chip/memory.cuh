// Kernels that copy, read, and do next to nothing, one after the other.

#pragma once

#include <cuda_runtime.h>

__global__ void copy_kernel(const uint4* source, uint4* target, size_t count) {
    size_t first = size_t(blockIdx.x) * blockDim.x * 4 + threadIdx.x;
    uint4 values[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        size_t at = first + size_t(i) * blockDim.x;
        if (at < count) values[i] = __ldcs(source + at);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        size_t at = first + size_t(i) * blockDim.x;
        if (at < count) __stcs(target + at, values[i]);
    }
}

__global__ void fill_kernel(unsigned* target, size_t count) {
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x)
        target[i] = unsigned(i) * 2654435761u;
}

// Every pass reads the whole buffer, each block another part of it than before; .cg passes by L1. The sum over all threads is
// returned so that no load can be left out.
__global__ void read_kernel(const uint4* source, unsigned count, int passes, unsigned* sum) {
    unsigned found = 0;
    for (int pass = 0; pass < passes; ++pass) {
        unsigned block = (blockIdx.x + pass * 37u) % gridDim.x;
#pragma unroll 8
        for (unsigned i = block * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
            uint4 v = __ldcg(source + i);
            found += v.x ^ v.y ^ v.z ^ v.w;
        }
    }
    atomicAdd(sum, found);
}

__global__ void empty_kernel() {}

__global__ void count_kernel(unsigned* count) {
    if (blockIdx.x == 0 && threadIdx.x == 0) *count += 1;
}

// LAUNCH_FIRST: the next kernel may begin before this one has waited for the one before it.
template <bool LAUNCH_FIRST>
__global__ void dependent_kernel(volatile unsigned* count) {
#if __CUDA_ARCH__ >= 900
    if (LAUNCH_FIRST) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (!LAUNCH_FIRST) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
    if (blockIdx.x == 0 && threadIdx.x == 0) *count = *count + 1;
}
