// Kernels whose blocks wait for each other: through memory, or through the shared memory of a cluster's blocks.

#pragma once

#include <cooperative_groups.h>
#include <cuda_runtime.h>

// Cycles, about a second: far longer than any barrier takes, far shorter than anybody's patience.
constexpr long long SPIN_LIMIT = 2'000'000'000;
// Links of the chains of loads, a power of two.
constexpr int LINKS = 1024;

__global__ void grid_sync_kernel(int rounds) {
    auto grid = cooperative_groups::this_grid();
    for (int i = 0; i < rounds; ++i) grid.sync();
}

__device__ unsigned load_acquire(const unsigned* p) {
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
    return value;
}

__device__ void store_release(unsigned* p, unsigned value) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}

// False, and *failed set, where `reached` does not come true in time.
template <typename Condition>
__device__ bool spin(Condition reached, unsigned* failed) {
    long long start = clock64();
    // The clock is seldom asked, so that asking is no part of what is measured.
    for (unsigned tries = 1; !reached(); ++tries)
        if (tries % 256 == 0 && clock64() - start > SPIN_LIMIT) {
            atomicExch(failed, 1u);
            return false;
        }
    return true;
}

// One counter in memory that every block raises once a round.
__global__ void flag_barrier_kernel(unsigned* counter, unsigned* failed, int rounds) {
    for (int i = 1; i <= rounds; ++i) {
        __syncthreads();
        bool late = false;
        if (threadIdx.x == 0) {
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
            late = !spin([&] { return load_acquire(counter) >= i * gridDim.x; }, failed);
        }
        if (__syncthreads_or(late)) return;
    }
}

// Two blocks answer each other through memory: flags[0] is what block 0 waits for, flags[32] what block 1 waits for.
__global__ void memory_answer_kernel(unsigned* flags, unsigned* failed, int rounds) {
    if (threadIdx.x != 0) return;
    unsigned *own = flags + 32 * blockIdx.x, *other = flags + 32 * (1 - blockIdx.x);
    for (unsigned i = 1; i <= unsigned(rounds); ++i) {
        if (blockIdx.x == 0) store_release(other, i);
        if (!spin([&] { return load_acquire(own) == i; }, failed)) return;
        if (blockIdx.x == 1) store_release(other, i);
    }
}

// ORDERED: what was written before it is seen after it, in every memory, for which the compiler puts a fence of the whole device
// and an invalidation of L1 beside the barrier. Otherwise it orders nothing, which is enough where data brings its own mbarrier.
template <bool ORDERED>
__device__ void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
    if (ORDERED)
        asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    else
        asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
#endif
}

template <bool ORDERED>
__global__ void cluster_barrier_kernel(int rounds) {
    for (int i = 0; i < rounds; ++i) cluster_barrier<ORDERED>();
}

#if __CUDA_ARCH__ >= 900
__device__ unsigned rank_in_cluster() {
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// Where `p`, of this block's shared memory, lies in the block `rank` of the cluster.
__device__ unsigned at_rank(const void* p, unsigned rank) {
    unsigned found, own = unsigned(__cvta_generic_to_shared(p));
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(found) : "r"(own), "r"(rank));
    return found;
}
#endif

// A chain of loads, each from where the one before it says: from the other block's shared memory, or from this one's.
template <bool REMOTE>
__global__ void shared_load_kernel(int rounds, unsigned* out) {
    __shared__ unsigned links[LINKS];
    for (unsigned i = threadIdx.x; i < LINKS; i += blockDim.x) links[i] = (i * 5 + 77) % LINKS;
#if __CUDA_ARCH__ >= 900
    cluster_barrier<true>();
    if (rank_in_cluster() == 0 && threadIdx.x == 0) {
        unsigned base = at_rank(links, REMOTE ? 1 : 0), at = 0;
        for (int i = 0; i < rounds; ++i) {
            if (REMOTE)
                asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(at) : "r"(base + at * 4) : "memory");
            else
                asm volatile("ld.shared::cta.u32 %0, [%1];" : "=r"(at) : "r"(base + at * 4) : "memory");
        }
        *out = at;
    }
    // The other block's memory has to be there as long as it is read.
    cluster_barrier<true>();
#endif
}

// How one block of a cluster tells another that something is there.
enum Answer {
    FLAG,      // a store with release, a load with acquire
    MBARRIER,  // an arrival with release at the other's mbarrier
    ASYNC,     // st.async: data that completes the other's mbarrier by itself, with no fence
};

// Two blocks of a cluster answer each other through shared memory.
template <Answer ANSWER>
__global__ void shared_answer_kernel(int rounds, unsigned* failed, unsigned* out) {
#if __CUDA_ARCH__ >= 900
    __shared__ alignas(8) unsigned long long barrier;
    __shared__ unsigned flag;
    unsigned rank = rank_in_cluster(), own = unsigned(__cvta_generic_to_shared(&barrier));
    unsigned own_flag = unsigned(__cvta_generic_to_shared(&flag));
    unsigned other = at_rank(&barrier, 1 - rank), other_flag = at_rank(&flag, 1 - rank);
    if (threadIdx.x == 0) {
        flag = 0;
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(own) : "memory");
    }
    cluster_barrier<true>();
    auto send = [&](unsigned i) {
        if (ANSWER == FLAG)
            asm volatile("st.release.cluster.shared::cluster.u32 [%0], %1;" ::"r"(other_flag), "r"(i) : "memory");
        else if (ANSWER == MBARRIER)
            asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(other) : "memory");
        else
            asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];" ::"r"(other_flag), "r"(i),
                         "r"(other)
                         : "memory");
    };
    auto arrived = [&](unsigned i) {
        unsigned found;
        if (ANSWER == FLAG) {
            asm volatile("ld.acquire.cluster.shared::cta.u32 %0, [%1];" : "=r"(found) : "r"(own_flag) : "memory");
            return found == i;
        }
        if (ANSWER == MBARRIER)
            asm volatile(
                "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
                "selp.u32 %0, 1, 0, p;\n}"
                : "=r"(found)
                : "r"(own), "r"((i - 1) & 1)
                : "memory");
        else
            asm volatile(
                "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                : "=r"(found)
                : "r"(own), "r"((i - 1) & 1)
                : "memory");
        return found != 0;
    };
    if (threadIdx.x == 0) {
        unsigned done = 0;
        for (unsigned i = 1; i <= unsigned(rounds); ++i) {
            if (ANSWER == ASYNC)
                asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 4;" ::"r"(own) : "memory");
            if (rank == 0) send(i);
            if (!spin([&] { return arrived(i); }, failed)) break;
            // What came is what was sent.
            if (ANSWER == ASYNC && *static_cast<volatile unsigned*>(&flag) != i) break;
            if (rank == 1) send(i);
            ++done;
        }
        if (rank == 0) *out = done;
    }
    cluster_barrier<true>();
#endif
}
