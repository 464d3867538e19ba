// Products whose right side is a tile of a few vectors' width: C = A B, or C += A B, three rows of C at a time in registers.
//
// A is read one number at a time through two strides. Tiles have room for whole vectors.
#pragma once

#include <type_traits>

#include "matmul.h"

namespace {

// What three rows of sums leave of the registers: 32 of them, or 16.
constexpr int kVectorsOfTile = kVectorBytes == 64 ? 6 : 4;

// Columns of a tile at most.
template <class T>
constexpr int64_t kTile = kVectorsOfTile * kLanes<T>;

// `run(std::integral_constant)` of how many vectors hold `columns` of a tile.
template <class T, int kVectors = kVectorsOfTile, class F>
FASTDRAW_INLINE void with_vectors(int64_t columns, F run) {
  if constexpr (kVectors > 1)
    if (columns <= (kVectors - 1) * kLanes<T>) return with_vectors<T, kVectors - 1>(columns, run);
  run(std::integral_constant<int, kVectors>{});
}

template <class T, int kRows, int kVectors>
FASTDRAW_INLINE void product_rows(int64_t depth, Operand<T> a, const T* b, int64_t b_row, T* c, int64_t c_row, bool accumulate) {
  Vector<T> sums[kRows][kVectors];
  for (int m = 0; m < kRows; ++m)
    for (int j = 0; j < kVectors; ++j) sums[m][j] = accumulate ? load(c + m * c_row + j * kLanes<T>) : Vector<T>{};
  const T* numbers = a.data;
#pragma GCC unroll 4
  for (int64_t k = 0; k < depth; ++k, b += b_row, numbers += a.column) {
    for (int j = 0; j < kVectors; ++j) {
      const Vector<T> values = load(b + j * kLanes<T>);
      for (int m = 0; m < kRows; ++m) sums[m][j] += numbers[m * a.row] * values;
    }
  }
  for (int m = 0; m < kRows; ++m)
    for (int j = 0; j < kVectors; ++j) store(c + m * c_row + j * kLanes<T>, sums[m][j]);
}

// Any number of rows, `kVectors` vectors wide.
template <class T, int kVectors>
void tile_product(int64_t rows, int64_t depth, Operand<T> a, const T* b, int64_t b_row, T* c, int64_t c_row, bool accumulate) {
  int64_t m = 0;
  for (; m + 3 <= rows; m += 3, a.data += 3 * a.row, c += 3 * c_row)
    product_rows<T, 3, kVectors>(depth, a, b, b_row, c, c_row, accumulate);
  if (rows - m == 2) product_rows<T, 2, kVectors>(depth, a, b, b_row, c, c_row, accumulate);
  if (rows - m == 1) product_rows<T, 1, kVectors>(depth, a, b, b_row, c, c_row, accumulate);
}

// The lanes with bit kBit of a pair of rows, exchanged across it: one step of turning a square.
template <int kBit, int kRows>
FASTDRAW_INLINE void exchange(Vector<float> (&rows)[kRows]) {
#if !defined(__clang__)
  IntVector low, high;
  for (int j = 0; j < kRows; ++j) low[j] = j & kBit ? kRows + j - kBit : j, high[j] = j & kBit ? kRows + j : j + kBit;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    if (i & kBit) continue;
    const Vector<float> a = rows[i], b = rows[i + kBit];
    rows[i] = __builtin_shuffle(a, b, low), rows[i + kBit] = __builtin_shuffle(a, b, high);
  }
  if constexpr (kBit > 1) exchange<kBit / 2>(rows);
#else
  (void)rows;
#endif
}

// `rows` rows of `columns` numbers become as many columns of whole vectors, [columns, to_row]. Both are padded to whole vectors; behind
// the rows there are zeros.
template <class T>
void turn(const T* from, int64_t from_row, int64_t rows, int64_t columns, T* to, int64_t to_row) {
  constexpr int kLanesOf = kLanes<T>;
  for (int64_t i = 0; i < rows; i += kLanesOf) {
    const int64_t left = rows - i < kLanesOf ? rows - i : kLanesOf;
    for (int64_t a = 0; a < columns; a += kLanesOf) {
#if !defined(__clang__)
      if constexpr (sizeof(T) == 4) {
        Vector<T> square[kLanesOf];
#pragma GCC unroll 16
        for (int k = 0; k < kLanesOf; ++k) square[k] = k < left ? load(from + (i + k) * from_row + a) : Vector<T>{};
        exchange<kLanesOf / 2>(square);
#pragma GCC unroll 16
        for (int k = 0; k < kLanesOf; ++k) store(to + (a + k) * to_row + i, square[k]);
        continue;
      }
#endif
      for (int64_t k = 0; k < kLanesOf; ++k)
        for (int64_t j = 0; j < kLanesOf; ++j) to[(a + k) * to_row + i + j] = j < left ? from[(i + j) * from_row + a + k] : T(0);
    }
  }
}

}  // namespace
