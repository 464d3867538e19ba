// Rows times a weight, tile by tile, each tile handed to what follows it while it is still in the nearest cache.
//
// A weight is packed once for all glimpses (pack.h): kTileRows rows of A, one number each, times four vectors. What is one pass
// over memory here would be two, and a wait of all threads between them, with a library's product.
#pragma once

#include "pack.h"

namespace {

// sums [kTileRows][four vectors] = A B over `steps`. Row r's numbers of step k stand at a + r a_row + k a_step.
template <class T, class A, int kRows, int kVectors>
__attribute__((noinline)) void tile(const A* a, int64_t a_row, int64_t a_step, const T* b, int64_t steps, T* sums) {
  Vector<T> total[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) total[r][v] = Vector<T>{};
  for (int64_t k = 0; k < steps; ++k, b += kVectors * kLanes<T>) {
    Vector<T> values[kVectors];
    for (int v = 0; v < kVectors; ++v) values[v] = load(b + v * kLanes<T>);
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v) total[r][v] += T(number(a[r * a_row + k * a_step])) * values[v];
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) store(sums + (r * kTileVectors + v) * kLanes<T>, total[r][v]);
}

#ifdef FASTDRAW_BF16_PAIRS
// The same for pairs. `last`: the last step has one number only, and what stands behind it is not read.
template <int kRows, int kVectors>
__attribute__((noinline, target("avx512bf16"))) void tile_of_pairs(const BFloat16* a, int64_t a_row, int64_t a_step,
                                                                   const BFloat16* b, int64_t steps, bool last, float* sums) {
  __m512 total[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) total[r][v] = _mm512_setzero_ps();
  for (int64_t k = 0; k < steps; ++k, b += kVectors * 32) {
    __m512bh values[kVectors];
    for (int v = 0; v < kVectors; ++v) values[v] = (__m512bh)_mm512_loadu_si512(b + v * 32);
    for (int r = 0; r < kRows; ++r) {
      uint32_t pair = 0;
      if (last && k == steps - 1)
        pair = a[r * a_row + k * a_step].bits;
      else
        memcpy(&pair, a + r * a_row + k * a_step, sizeof pair);
      const __m512bh numbers = (__m512bh)_mm512_set1_epi32(int(pair));
      for (int v = 0; v < kVectors; ++v) total[r][v] = _mm512_dpbf16_ps(total[r][v], numbers, values[v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(sums + (r * kTileVectors + v) * 16, total[r][v]);
}
#endif

template <class T, class A, int kRows>
void tile_of_rows(int vectors, const A* a, int64_t a_row, int64_t a_step, const T* b, int64_t steps, T* sums) {
  switch (vectors) {
    case 1: return tile<T, A, kRows, 1>(a, a_row, a_step, b, steps, sums);
    case 2: return tile<T, A, kRows, 2>(a, a_row, a_step, b, steps, sums);
    case 3: return tile<T, A, kRows, 3>(a, a_row, a_step, b, steps, sums);
    default: return tile<T, A, kRows, 4>(a, a_row, a_step, b, steps, sums);
  }
}

// A tile of `rows` <= kTileRows rows and `vectors` <= 4 vectors. `depth` is in numbers; `b` is a packed panel.
template <class T, class A>
void any_tile(int64_t rows, int vectors, const A* a, int64_t a_row, int64_t a_step, const void* b, int64_t depth, T* sums) {
  const T* panel = static_cast<const T*>(b);
  switch (rows) {
    case 1: return tile_of_rows<T, A, 1>(vectors, a, a_row, a_step, panel, depth, sums);
    case 2: return tile_of_rows<T, A, 2>(vectors, a, a_row, a_step, panel, depth, sums);
    case 3: return tile_of_rows<T, A, 3>(vectors, a, a_row, a_step, panel, depth, sums);
    default: return tile_of_rows<T, A, kTileRows>(vectors, a, a_row, a_step, panel, depth, sums);
  }
}

#ifdef FASTDRAW_BF16_PAIRS
template <int kRows>
void pairs_of_rows(int vectors, const BFloat16* a, int64_t a_row, int64_t a_step, const BFloat16* b, int64_t depth, float* sums) {
  const int64_t steps = (depth + 1) / 2;
  const bool last = depth % 2 != 0;
  switch (vectors) {
    case 1: return tile_of_pairs<kRows, 1>(a, a_row, a_step, b, steps, last, sums);
    case 2: return tile_of_pairs<kRows, 2>(a, a_row, a_step, b, steps, last, sums);
    case 3: return tile_of_pairs<kRows, 3>(a, a_row, a_step, b, steps, last, sums);
    default: return tile_of_pairs<kRows, 4>(a, a_row, a_step, b, steps, last, sums);
  }
}

void any_pairs(int64_t rows, int vectors, const BFloat16* a, int64_t a_row, int64_t a_step, const void* b, int64_t depth,
               float* sums) {
  const BFloat16* panel = static_cast<const BFloat16*>(b);
  switch (rows) {
    case 1: return pairs_of_rows<1>(vectors, a, a_row, a_step, panel, depth, sums);
    case 2: return pairs_of_rows<2>(vectors, a, a_row, a_step, panel, depth, sums);
    case 3: return pairs_of_rows<3>(vectors, a, a_row, a_step, panel, depth, sums);
    default: return pairs_of_rows<kTileRows>(vectors, a, a_row, a_step, panel, depth, sums);
  }
}
#endif

// Rows of a user's matrix: numbers of one row lie one after another.
template <class T, class S>
FASTDRAW_INLINE void row_tile(int64_t rows, int vectors, const S* a, int64_t a_row, const void* b, int64_t depth, T* sums) {
#ifdef FASTDRAW_BF16_PAIRS
  if constexpr (sizeof(S) == 2)
    if (multiplies_pairs()) return any_pairs(rows, vectors, a, a_row, 2, b, depth, sums);
#endif
  any_tile<T, S>(rows, vectors, a, a_row, 1, b, depth, sums);
}

// One product, and what follows: E is called with the tile's first row, its rows, its panel and the sums.
template <class T, class S, class E>
struct ProductJob {
  PanelLayout layout;
  int64_t rows, depth, a_row;
  const S* a;
  const char* packed;
  E epilogue;
};

// Rows of one task: enough for a panel that was fetched from far away to be used several times.
constexpr int64_t kTaskRows = 8 * kTileRows;

template <class T, class S, class E>
void product_panel(const ProductJob<T, S, E>& job, int64_t panel, int64_t first, int64_t last) {
  alignas(64) T sums[kTileRows * kTileWidth<T>];
  const int vectors = job.layout.template vectors<T>(panel);
  const char* b = job.packed + panel * packed_bytes<T, S>(kTileWidth<T>, job.depth);
  for (int64_t row = first; row < last; row += kTileRows) {
    const int64_t rows = last - row < kTileRows ? last - row : kTileRows;
    row_tile<T, S>(rows, vectors, job.a + row * job.a_row, job.a_row, b, job.depth, sums);
    job.epilogue(row, rows, panel, vectors, sums);
  }
}

template <class T, class S, class E>
bool product_tasks(void* data, int64_t begin, int64_t end) {
  const ProductJob<T, S, E>& job = *static_cast<ProductJob<T, S, E>*>(data);
  const int64_t blocks = divided_up(job.rows, kTaskRows), panels = job.layout.template panels<T>();
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task % blocks * kTaskRows, last = first + kTaskRows < job.rows ? first + kTaskRows : job.rows;
    if (!E::kWholeRows)
      product_panel(job, task / blocks, first, last);
    else
      for (int64_t panel = 0; panel < panels; ++panel) product_panel(job, panel, first, last);
  }
  return true;
}

// Results do not depend on the number of threads: every sum is made by one of them, in one order.
template <class T, class S, class E>
int product(Order order, const ProductSizes& sizes, const S* a, const void* packed, const E& epilogue) {
  const PanelLayout layout{order, sizes.outputs};
  ProductJob<T, S, E> job{layout, sizes.batch, sizes.depth, sizes.row, a, static_cast<const char*>(packed), epilogue};
  const int64_t blocks = divided_up(sizes.batch, kTaskRows), panels = E::kWholeRows ? 1 : layout.template panels<T>();
  return fastdraw_parallel_each(blocks * panels, sizes.threads, product_tasks<T, S, E>, &job) ? 0 : 1;
}

}  // namespace
