// Products whose right side is a tile of one to four vectors width: C = A B, or C += A B, three rows of C at a time in registers.
//
// A is read one number at a time through two strides. Tiles have room for whole vectors.
#pragma once

#include "matmul.h"

namespace {

constexpr int kVectorsOfTile = 4;

// Columns of a tile at most.
template <class T>
constexpr int64_t kTile = kVectorsOfTile * kLanes<T>;

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

}  // namespace
