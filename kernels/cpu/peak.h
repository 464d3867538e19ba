// The rate at which this instruction set multiplies and adds, with nothing to load: the ceiling of all products.
//
// As many sums as a tile of a product has, each a chain of its own, so that none waits for its last addition. bfloat16 is
// multiplied in pairs where the machine has the instruction, and otherwise as float32, which is what the products do.
#pragma once

#include "parallel.h"
#include "product.h"
#include "sizes.h"

namespace {

constexpr int kChains = kTileRows * kTileVectors;

struct PeakJob {
  int64_t rounds;
  double sum;  // Of all chains, for the compiler to see that they are wanted.
};

// What the compiler cannot know the value of.
template <class T>
FASTDRAW_INLINE T hidden(T value) {
  volatile T place = value;
  return place;
}

FASTDRAW_INLINE void add_to_all(PeakJob& job, double sum) {
  // Threads meet here once a task.
  double before, after;
  __atomic_load(&job.sum, &before, __ATOMIC_RELAXED);
  do after = before + sum;
  while (!__atomic_compare_exchange(&job.sum, &before, &after, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

template <class T>
bool multiply_and_add(void* data, int64_t begin, int64_t end) {
  PeakJob& job = *static_cast<PeakJob*>(data);
  const Vector<T> half = broadcast(hidden(T(0.5)));
  Vector<T> sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = broadcast(hidden(T(i)));
  // Each goes to one, so that no number is large or tiny.
  for (int64_t left = (end - begin) * job.rounds; left > 0; --left)
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * half + half;
  Vector<T> all{};
  for (int i = 0; i < kChains; ++i) all += sums[i];
  add_to_all(job, double(sum<T>(all)));
  return true;
}

#ifdef FASTDRAW_BF16_PAIRS
__attribute__((target("avx512bf16"))) bool multiply_and_add_pairs(void* data, int64_t begin, int64_t end) {
  PeakJob& job = *static_cast<PeakJob*>(data);
  // Twice the square of 2^-7: sums stay below the number of rounds.
  const __m512bh small = (__m512bh)_mm512_set1_epi16(int16_t(hidden(0x3C00)));
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(hidden(float(i)));
  for (int64_t left = (end - begin) * job.rounds; left > 0; --left)
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], small, small);
  Vector<float> all{};
  for (int i = 0; i < kChains; ++i) all += (Vector<float>)sums[i];
  add_to_all(job, double(sum<float>(all)));
  return true;
}
#endif

// `threads` threads, `rounds` rounds each. operations: how many additions and multiplications that was.
template <class T, class S>
int peak(const PeakSizes& sizes, int64_t* operations) {
  PeakJob job{sizes.rounds, 0};
  int64_t lanes = kLanes<T>;
  FastdrawTasks run = multiply_and_add<T>;
#ifdef FASTDRAW_BF16_PAIRS
  if (sizeof(S) == 2 && multiplies_pairs()) lanes *= 2, run = multiply_and_add_pairs;
#endif
  *operations = 2 * lanes * kChains * sizes.rounds * sizes.threads;
  return fastdraw_parallel_each(sizes.threads, sizes.threads, run, &job) ? 0 : 1;
}

}  // namespace
