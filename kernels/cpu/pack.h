// A weight as the products take it: panels of four vectors of outputs, depth after depth, so that the innermost loop reads it
// straight through.
//
// A step is one number of depth; of bfloat16, where the machine multiplies pairs of them, two. Packing takes as long as the
// products of a few rows, so where batches are small it shows: it goes along the weight's rows and not from number to number.
#pragma once

#include "parallel.h"
#include "sizes.h"
#include "storage.h"

#if defined(__AVX512BW__) && (defined(__clang__) ? __clang_major__ >= 9 : __GNUC__ >= 10)
#define FASTDRAW_BF16_PAIRS 1
#endif

namespace {

constexpr int kTileVectors = 4;
// As many as leave registers for the weight: there are 32 with AVX-512 and on 64-bit ARM, 16 otherwise.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileRows = 4;
#else
constexpr int kTileRows = 3;
#endif

template <class T>
constexpr int64_t kTileWidth = kTileVectors * kLanes<T>;

FASTDRAW_INLINE bool multiplies_pairs() {
#ifdef FASTDRAW_BF16_PAIRS
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

// Numbers in one step of depth.
template <class S>
FASTDRAW_INLINE int64_t step_of() {
  return 1;
}
template <>
FASTDRAW_INLINE int64_t step_of<BFloat16>() {
  return multiplies_pairs() ? 2 : 1;
}

FASTDRAW_INLINE int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes of `columns` outputs (whole vectors) and `depth` inputs, packed.
template <class T, class S>
FASTDRAW_INLINE int64_t packed_bytes(int64_t columns, int64_t depth) {
  const int64_t step = step_of<S>();
  return divided_up(depth, step) * columns * (step == 2 ? 4 : int64_t(sizeof(T)));
}

// Which outputs stand in one panel.
enum class Order : int64_t {
  kPlain,    // 4 vectors of outputs, one after another
  kGates,    // a vector of hidden units: their i, f, g and o
  kLatents,  // two vectors of latents (or the last one): their mu, then their log sigma
};

struct PanelLayout {
  Order order;
  int64_t outputs;

  // Units (outputs, hidden units or latents) that the layout runs over, and how many of them a panel holds.
  template <class T>
  int64_t panels() const {
    return divided_up(units(), units_per_panel<T>());
  }
  int64_t units() const { return order == Order::kPlain ? outputs : outputs / (order == Order::kGates ? 4 : 2); }
  template <class T>
  int64_t units_per_panel() const {
    return kLanes<T> * (order == Order::kPlain ? 4 : (order == Order::kGates ? 1 : 2));
  }
  template <class T>
  int vectors(int64_t panel) const {
    const int64_t first = panel * units_per_panel<T>(), left = divided_up(units() - first, kLanes<T>);
    if (order == Order::kGates) return 4;
    const int64_t most = order == Order::kPlain ? 4 : 2, there = left < most ? left : most;
    return int(order == Order::kPlain ? there : 2 * there);
  }
  // The first output of a panel's vector, and in `count` how many outputs it has.
  template <class T>
  int64_t output(int64_t panel, int vector, int64_t* count) const {
    int64_t part = 0, within = vector;
    if (order == Order::kGates) part = vector, within = 0;
    if (order == Order::kLatents) part = vector / (vectors<T>(panel) / 2), within = vector % (vectors<T>(panel) / 2);
    const int64_t unit = panel * units_per_panel<T>() + within * kLanes<T>, left = units() - unit;
    *count = left < kLanes<T> ? left : kLanes<T>;
    return part * units() + unit;
  }
};

// A weight [M, K] in two parts, of its first `split` columns and of the others: those of an LSTM's inputs and of its state.
template <class S>
struct Weight {
  const S *first, *second;
  int64_t columns, split, first_row;

  FASTDRAW_INLINE const S* at(int64_t row, int64_t column) const {
    return column < split ? first + row * first_row + column : second + row * (columns - split) + column - split;
  }
};

template <class T, class S>
struct PackJob {
  PanelLayout layout;
  int64_t depth;
  bool backward;  // Outputs are the weight's columns, and not its rows.
  Weight<S> weight;
  char* packed;

  FASTDRAW_INLINE const S* at(int64_t output, int64_t k) const {
    return backward ? weight.at(k, output) : weight.at(output, k);
  }
  // How many numbers lie beside each other from there on: of later depths, or with `backward` of further outputs.
  int64_t together(int64_t output, int64_t k) const {
    const int64_t column = backward ? output : k;
    return (column < weight.split ? weight.split : weight.columns) - column;
  }
};

// Depths of a weight's rows that are turned at once: what they are written to stays in the nearest cache.
constexpr int64_t kTurned = 64;

FASTDRAW_INLINE uint32_t pair_of(const BFloat16* a, const BFloat16* b) { return a->bits | uint32_t(b->bits) << 16; }

// What the products take in one step of depth, from numbers of it that lie side by side.
template <class S>
FASTDRAW_INLINE void take(float* to, const S* from) { *to = number(*from); }
FASTDRAW_INLINE void take(double* to, const double* from) { *to = *from; }
FASTDRAW_INLINE void take(uint32_t* to, const BFloat16* from) { memcpy(to, from, sizeof *to); }

// Depths from `begin` on of one vector of outputs, which lie in rows of the weight. `row`: units from one step to the next.
template <class Unit, int kStep, class T, class S>
void turn_rows(const PackJob<T, S>& job, int64_t output, int64_t count, Unit* to, int64_t row, int64_t begin) {
  const S nothing[2 * kTurned] = {};
  const int64_t end = begin + kTurned < job.depth ? begin + kTurned : job.depth;
  for (int64_t k = begin, n; k < end; k += n) {
    n = end - k;
    const int64_t together = job.together(output, k);
    if (n > together) n = together;
    if (n % kStep && n > 1) --n;
    if (n < kStep) {
      // A pair whose numbers lie apart, or the last one's first half.
      for (int64_t i = 0; i < kLanes<T>; ++i) {
        S pair[2] = {};
        for (int64_t j = 0; j < kStep && i < count && k + j < job.depth; ++j) pair[j] = *job.at(output + i, k + j);
        take(to + k / kStep * row + i, pair);
      }
      n = kStep;
      continue;
    }
    for (int64_t i = 0; i < kLanes<T>; ++i) {
      const S* from = i < count ? job.at(output + i, k) : nothing;
      // The next depths of this row, which lies far from the others: no hardware looks ahead in so many.
      if (k + 2 * kTurned <= job.depth)
        for (int64_t ahead = kTurned; ahead < 2 * kTurned; ahead += 64 / int64_t(sizeof(S))) __builtin_prefetch(from + ahead);
      for (int64_t j = 0; j < n / kStep; ++j) take(to + (k / kStep + j) * row + i, from + j * kStep);
    }
  }
}

// One vector of outputs, which lie in columns.
template <class T, class S>
void copy_columns(const PackJob<T, S>& job, int64_t output, int64_t count, T* to, int64_t row) {
  const bool together = job.together(output, 0) >= count;
  for (int64_t k = 0; k < job.depth; ++k, to += row) {
    if (together)
      store(to, load_some_as<T>(job.at(output, k), count));
    else
      for (int64_t i = 0; i < kLanes<T>; ++i) to[i] = i < count ? T(number(*job.at(output + i, k))) : T(0);
  }
}

// The same in pairs.
FASTDRAW_INLINE void copy_columns(const PackJob<float, BFloat16>& job, int64_t output, int64_t count, uint32_t* to,
                                  int64_t row) {
  const BFloat16 nothing[kLanes<float>] = {};
  const bool whole = count == kLanes<float> && job.together(output, 0) >= count;
  for (int64_t k = 0; k < job.depth; k += 2, to += row) {
    const bool both = k + 1 < job.depth;
    if (whole) {
      const BFloat16 *a = job.at(output, k), *b = both ? job.at(output, k + 1) : nothing;
      for (int i = 0; i < kLanes<float>; ++i) to[i] = pair_of(a + i, b + i);
    } else {
      for (int64_t i = 0; i < kLanes<float>; ++i)
        to[i] = i < count ? pair_of(job.at(output + i, k), both ? job.at(output + i, k + 1) : nothing) : 0;
    }
  }
}

// The vectors of one panel. Unit: what a step takes of one output.
template <class Unit, int kStep, class T, class S>
void pack_panel(const PackJob<T, S>& job, int64_t panel, Unit* to) {
  const int vectors = job.layout.template vectors<T>(panel);
  const int64_t row = vectors * kLanes<T>;
  for (int64_t k = 0; k < job.depth; k += job.backward ? job.depth : kTurned)
    for (int v = 0; v < vectors; ++v) {
      int64_t count;
      const int64_t output = job.layout.template output<T>(panel, v, &count);
      if (!job.backward)
        turn_rows<Unit, kStep>(job, output, count, to + v * kLanes<T>, row, k);
      else
        copy_columns(job, output, count, to + v * kLanes<T>, row);
    }
}

template <class T, class S>
bool pack_panels(void* data, int64_t begin, int64_t end) {
  const PackJob<T, S>& job = *static_cast<PackJob<T, S>*>(data);
  for (int64_t panel = begin; panel < end; ++panel) {
    char* to = job.packed + panel * packed_bytes<T, S>(kTileWidth<T>, job.depth);
    if constexpr (sizeof(S) == 2) {
      if (step_of<S>() == 2) {
        pack_panel<uint32_t, 2>(job, panel, reinterpret_cast<uint32_t*>(to));
        continue;
      }
    }
    pack_panel<T, 1>(job, panel, reinterpret_cast<T*>(to));
  }
  return true;
}

}  // namespace
