// The gradient of a weight: W [M, K] += G^T X over the rows of all glimpses, and of its bias, the sum of G's rows. W is in two
// parts, as in product.h.
//
// Both operands are packed first, row after row, as product.h's tiles read them: G in groups of kTileRows outputs, X in panels.
#pragma once

#include "product.h"
#include "sizes.h"

namespace {

template <class T, class S>
struct WeightJob {
  int64_t rows, outputs, inputs, grad_row, input_row;
  const S *grad, *input;
  T *first, *second, *bias;
  int64_t split, first_row;
  char *grads, *panels;  // packed

  FASTDRAW_INLINE T* weight(int64_t row, int64_t column) const {
    return column < split ? first + row * first_row + column : second + row * (inputs - split) + column - split;
  }
  // Rows in whole steps.
  int64_t depth() const { return divided_up(rows, step_of<S>()) * step_of<S>(); }
  int64_t bytes_of_number() const { return step_of<S>() == 2 ? 2 : int64_t(sizeof(T)); }
  int64_t group_bytes() const { return depth() * kTileRows * bytes_of_number(); }
  int64_t groups() const { return divided_up(outputs, kTileRows); }
  int64_t panel_count() const { return divided_up(inputs, kTileWidth<T>); }
};

// One step of `width` columns: of one row, or of two where the machine multiplies pairs; zeros where there is nothing.
template <class T, class S>
FASTDRAW_INLINE void pack_step(char* to, bool pairs, int64_t width, const S* row, const S* next, int64_t there) {
  if (pairs) {
    uint32_t* out = reinterpret_cast<uint32_t*>(to);
    const uint16_t *low = reinterpret_cast<const uint16_t*>(row), *high = reinterpret_cast<const uint16_t*>(next);
    if (next)
      for (int64_t i = 0; i < there; ++i) out[i] = low[i] | uint32_t(high[i]) << 16;
    else
      for (int64_t i = 0; i < there; ++i) out[i] = low[i];
    for (int64_t i = there; i < width; ++i) out[i] = 0;
  } else {
    T* out = reinterpret_cast<T*>(to);
    for (int64_t i = 0; i < there; ++i) out[i] = T(number(row[i]));
    for (int64_t i = there; i < width; ++i) out[i] = 0;
  }
}

// Calls `pack` for every step with the step's number, its row, and the next one: null where there is none, or none is wanted.
template <class S, class Pack>
FASTDRAW_INLINE void each_step(int64_t rows, int64_t row_numbers, const S* from, const Pack& pack) {
  const int64_t step = step_of<S>();
  for (int64_t row = 0; row < rows; row += step, from += step * row_numbers)
    pack(row / step, from, step == 2 && row + 1 < rows ? from + row_numbers : nullptr);
}

// Columns of G that are packed together: a cache line of float32.
constexpr int64_t kTaskColumns = 4 * kTileRows;

#if defined(__AVX512F__)
FASTDRAW_INLINE UintVector bits_of(const BFloat16* p) {
  ShortVector bits;
  memcpy(&bits, p, sizeof bits);
  return __builtin_convertvector(bits, UintVector);
}
FASTDRAW_INLINE UintVector bits_of(const float*) { return UintVector{}; }

// pack_grads for as many columns as there are lanes: a vector of a row, or of two, goes to four groups of four.
template <class S>
void pack_whole_grads(const WeightJob<float, S>& job, int64_t first, char* to, bool pairs, int64_t group_bytes) {
  typedef Vector<float> V;
  V total{};
  each_step(job.rows, job.grad_row, job.grad + first, [&](int64_t step, const S* row, const S* next) {
    V numbers;
    if (pairs) {
      const UintVector low = bits_of(row), high = next ? bits_of(next) << 16 : UintVector{};
      total += (V)(low << 16);
      total += (V)high;
      numbers = (V)(low | high);
    } else {
      numbers = load_some_as<float>(row, kLanes<float>);
      total += numbers;
    }
    for (int i = 0; i < 4; ++i) memcpy(to + i * group_bytes + step * 16, reinterpret_cast<const char*>(&numbers) + 16 * i, 16);
  });
  store(job.bias + first, load(job.bias + first) + total);
}
#else
template <class S>
void pack_whole_grads(const WeightJob<float, S>&, int64_t, char*, bool, int64_t) {}
#endif

template <class T, class S>
void pack_grads(const WeightJob<T, S>& job, int64_t first) {
  const int64_t left = job.outputs - first, there = left < kTaskColumns ? left : kTaskColumns;
  const bool pairs = step_of<S>() == 2;
  char* to = job.grads + first / kTileRows * job.group_bytes();
  const int64_t step_bytes = kTileRows * (pairs ? 4 : int64_t(sizeof(T))), group_bytes = job.group_bytes();
  if constexpr (kVectorBytes == 64 && sizeof(T) == 4) {
    if (there == kTaskColumns) return pack_whole_grads(job, first, to, pairs, group_bytes);
  }
  T sums[kTaskColumns] = {};
  each_step(job.rows, job.grad_row, job.grad + first, [&](int64_t step, const S* row, const S* next) {
    for (int64_t i = 0; i < there; ++i) sums[i] += T(number(row[i]));
    if (next)
      for (int64_t i = 0; i < there; ++i) sums[i] += T(number(next[i]));
    for (int64_t i = 0; i < there; i += kTileRows) {
      char* at = to + i / kTileRows * group_bytes + step * step_bytes;
      const S* second = next ? next + i : nullptr;
      // Whole groups are told so in numbers that the compiler knows.
      if (there - i >= kTileRows)
        pack_step<T, S>(at, pairs, kTileRows, row + i, second, kTileRows);
      else
        pack_step<T, S>(at, pairs, kTileRows, row + i, second, there - i);
    }
  });
  for (int64_t i = 0; i < there; ++i) job.bias[first + i] += sums[i];
}

template <class T, class S>
void pack_inputs(const WeightJob<T, S>& job, int64_t panel) {
  const int64_t first = panel * kTileWidth<T>, left = job.inputs - first, there = left < kTileWidth<T> ? left : kTileWidth<T>;
  const int64_t width = divided_up(there, kLanes<T>) * kLanes<T>;
  const bool pairs = step_of<S>() == 2, whole = there == kTileWidth<T>;
  char* to = job.panels + panel * packed_bytes<T, S>(kTileWidth<T>, job.depth());
  const int64_t step_bytes = width * (pairs ? 4 : int64_t(sizeof(T)));
  each_step(job.rows, job.input_row, job.input + first, [&](int64_t step, const S* row, const S* next) {
    if (whole)
      pack_step<T, S>(to + step * step_bytes, pairs, kTileWidth<T>, row, next, kTileWidth<T>);
    else
      pack_step<T, S>(to + step * step_bytes, pairs, width, row, next, there);
  });
}

// Tasks are columns of G, and then X's panels.
template <class T, class S>
bool pack_for_weights(void* data, int64_t begin, int64_t end) {
  const WeightJob<T, S>& job = *static_cast<WeightJob<T, S>*>(data);
  const int64_t lines = divided_up(job.outputs, kTaskColumns);
  for (int64_t task = begin; task < end; ++task)
    task < lines ? pack_grads(job, task * kTaskColumns) : pack_inputs(job, task - lines);
  return true;
}

template <class T, class S>
FASTDRAW_INLINE void add_to_weight(const WeightJob<T, S>& job, int64_t row, int64_t column, int64_t count, const T* sums) {
  const int64_t split = job.split, end = column + (count < kLanes<T> ? count : kLanes<T>);
  if (end <= split || column >= split) {
    T* to = job.weight(row, column);
    store_some_as<T>(to, load_some_as<T>(to, count) + load(sums), count);
    return;
  }
  for (int64_t i = column; i < end; ++i) *job.weight(row, i) += sums[i - column];
}

// Has a tile's row of the weight brought near while its sums are made.
template <class T, class S>
FASTDRAW_INLINE void fetch_weight(const WeightJob<T, S>& job, int64_t row, int64_t column) {
  const int64_t split = job.split, left = (column < split ? split : job.inputs) - column;
  const T* at = job.weight(row, column);
  for (int64_t i = 0; i < kTileWidth<T> && i < left; i += kLanes<T>) __builtin_prefetch(at + i, 1);
}

// Groups of one task.
constexpr int64_t kTaskGroups = 32;

template <class T, class S>
bool weight_tasks(void* data, int64_t begin, int64_t end) {
  const WeightJob<T, S>& job = *static_cast<WeightJob<T, S>*>(data);
  const int64_t blocks = divided_up(job.groups(), kTaskGroups);
  alignas(64) T sums[kTileRows * kTileWidth<T>];
  for (int64_t task = begin; task < end; ++task) {
    const int64_t panel = task / blocks, column = panel * kTileWidth<T>, left = divided_up(job.inputs - column, kLanes<T>);
    const int vectors = int(left < kTileVectors ? left : kTileVectors);
    const char* b = job.panels + panel * packed_bytes<T, S>(kTileWidth<T>, job.depth());
    const int64_t last = task % blocks * kTaskGroups + kTaskGroups;
    for (int64_t group = task % blocks * kTaskGroups; group < last && group < job.groups(); ++group) {
      const char* a = job.grads + group * job.group_bytes();
      for (int64_t r = 0; r < kTileRows && group * kTileRows + r < job.outputs; ++r) fetch_weight(job, group * kTileRows + r, column);
#ifdef FASTDRAW_BF16_PAIRS
      if constexpr (sizeof(S) == 2) {
        if (multiplies_pairs())
          any_pairs(kTileRows, vectors, reinterpret_cast<const BFloat16*>(a), 2, 2 * kTileRows, b, job.depth(), sums);
        else
          any_tile<T, T>(kTileRows, vectors, reinterpret_cast<const T*>(a), 1, kTileRows, b, job.depth(), sums);
      } else
#endif
        any_tile<T, T>(kTileRows, vectors, reinterpret_cast<const T*>(a), 1, kTileRows, b, job.depth(), sums);
      for (int64_t r = 0; r < kTileRows && group * kTileRows + r < job.outputs; ++r)
        for (int v = 0; v < vectors; ++v) {
          const int64_t at = column + v * kLanes<T>, count = job.inputs - at;
          add_to_weight(job, group * kTileRows + r, at, count, sums + (r * kTileVectors + v) * kLanes<T>);
        }
    }
  }
  return true;
}

template <class T, class S>
int weight_gradient(const WeightGradientSizes& sizes, const S* grad, const S* input, T* first, T* second, T* bias) {
  WeightJob<T, S> job{sizes.rows, sizes.outputs, sizes.inputs, sizes.grad_row,  sizes.input_row, grad,   input,
                      first,      second,        bias,         sizes.split, sizes.first_row, nullptr, nullptr};
  const int64_t grads = divided_up(job.groups() * job.group_bytes(), 64) * 64;
  const int64_t bytes = grads + job.panel_count() * packed_bytes<T, S>(kTileWidth<T>, job.depth());
  void* memory = fastdraw_scratch(size_t(bytes) + 64, kWeightSlot);
  if (!memory) return 1;
  job.grads = static_cast<char*>(memory), job.panels = job.grads + grads;
  const int64_t packs = divided_up(job.outputs, kTaskColumns) + job.panel_count();
  const int64_t tasks = job.panel_count() * divided_up(job.groups(), kTaskGroups);
  const bool done = fastdraw_parallel_each(packs, sizes.threads, pack_for_weights<T, S>, &job) &&
                    fastdraw_parallel_each(tasks, sizes.threads, weight_tasks<T, S>, &job);
  return done ? 0 : 1;
}

}  // namespace
