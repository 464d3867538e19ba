// Small matrix products with everything in registers: C = A B, or C += A B, for the few rows of a filterbank.
//
// A is read one number at a time through any two strides, so that a transposed A costs nothing; rows of B and C lie in memory
// one after another. Where B or C is a user's image its rows may end anywhere; scratch matrices are padded to whole vectors.
#pragma once

#include "vector.h"

namespace {

template <class T>
struct Operand {
  const T* data;
  int64_t row;  // Numbers from one row to the next.
  int64_t column;
};

enum class Tail {
  kPadded,  // B and C have room for whole vectors.
  kLoad,    // B's rows end at `columns`: what lies behind them is not read, and counts as zero. C is padded.
  kStore,   // C's rows end at `columns`: what lies behind them is not written. B is padded.
};

// One block of C: kRows x kVectors vectors that stand at the columns `at`.
template <class T, int kRows, int kVectors, bool kPartial>
FASTDRAW_INLINE void block(int64_t depth, Operand<T> a, const T* b, int64_t b_row, T* c, int64_t c_row,
                           const int64_t (&at)[2], int64_t last, bool accumulate) {
  Vector<T> sums[kRows][kVectors];
  for (int m = 0; m < kRows; ++m)
    for (int j = 0; j < kVectors; ++j) sums[m][j] = accumulate ? load(c + m * c_row + at[j]) : Vector<T>{};
  const T* numbers = a.data;
  for (int64_t k = 0; k < depth; ++k, b += b_row, numbers += a.column) {
    Vector<T> values[kVectors];
    for (int j = 0; j < kVectors; ++j)
      values[j] = kPartial && j == kVectors - 1 ? load_first(b + at[j], last) : load(b + at[j]);
    for (int m = 0; m < kRows; ++m)
      for (int j = 0; j < kVectors; ++j) sums[m][j] += numbers[m * a.row] * values[j];
  }
  for (int m = 0; m < kRows; ++m)
    for (int j = 0; j < kVectors; ++j) store(c + m * c_row + at[j], sums[m][j]);
}

template <class T, int kVectors, bool kPartial>
void column_of_blocks(int64_t rows, int64_t depth, Operand<T> a, const T* b, int64_t b_row, T* c, int64_t c_row,
                      const int64_t (&at)[2], int64_t last, bool accumulate) {
  // Rows are shared out evenly between blocks of at most six: two of four, not six and two.
  const int64_t blocks = (rows + 5) / 6;
  for (int64_t i = 0, m = 0; i < blocks; ++i) {
    const int64_t count = (rows - m + blocks - i - 1) / (blocks - i);
    const Operand<T> part{a.data + m * a.row, a.row, a.column};
    T* to = c + m * c_row;
    switch (count) {
      case 1: block<T, 1, kVectors, kPartial>(depth, part, b, b_row, to, c_row, at, last, accumulate); break;
      case 2: block<T, 2, kVectors, kPartial>(depth, part, b, b_row, to, c_row, at, last, accumulate); break;
      case 3: block<T, 3, kVectors, kPartial>(depth, part, b, b_row, to, c_row, at, last, accumulate); break;
      case 4: block<T, 4, kVectors, kPartial>(depth, part, b, b_row, to, c_row, at, last, accumulate); break;
      case 5: block<T, 5, kVectors, kPartial>(depth, part, b, b_row, to, c_row, at, last, accumulate); break;
      default: block<T, 6, kVectors, kPartial>(depth, part, b, b_row, to, c_row, at, last, accumulate); break;
    }
    m += count;
  }
}

// Fewer columns than one vector holds, in a user's image: through a row of scratch.
template <class T>
void narrow_store(int64_t rows, int64_t columns, int64_t depth, Operand<T> a, const T* b, int64_t b_row, T* c, int64_t c_row) {
  for (int64_t m = 0; m < rows; ++m) {
    Vector<T> total{};
    for (int64_t k = 0; k < depth; ++k) total += a.data[m * a.row + k * a.column] * load(b + k * b_row);
    store_first(c + m * c_row, total, columns);
  }
}

// C [rows, columns] = A [rows, depth] B [depth, columns], added to C where `accumulate`. Tail::kStore does not accumulate.
template <class T, Tail kTail>
void matmul(int64_t rows, int64_t columns, int64_t depth, Operand<T> a, const T* b, int64_t b_row, T* c, int64_t c_row,
            bool accumulate = false) {
  constexpr int64_t kWidth = kLanes<T>;
  // A deep product is cut, so that a strip of B stays in the nearest cache while all rows of A pass over it.
  constexpr int64_t kDepth = 64;
  if (kTail == Tail::kStore && columns < kWidth) return narrow_store(rows, columns, depth, a, b, b_row, c, c_row);
  for (int64_t k = 0; k < depth || k == 0; k += kDepth) {
    // The rows that a user gets are never read back, so that columns written twice come out the same.
    const int64_t part = kTail == Tail::kStore ? depth : (depth - k < kDepth ? depth - k : kDepth);
    const Operand<T> a_part{a.data + k * a.column, a.row, a.column};
    const T* b_part = b + k * b_row;
    for (int64_t column = 0; column < columns; column += 2 * kWidth) {
      const bool two = column + kWidth < columns;
      int64_t at[2] = {column, column + kWidth};
      const int64_t last = columns - at[two];
      const bool partial = last < kWidth;
      if (kTail == Tail::kStore && partial) at[two] = columns - kWidth;
      const bool add = accumulate || k > 0;
      if (kTail == Tail::kLoad && partial) {
        if (two)
          column_of_blocks<T, 2, true>(rows, part, a_part, b_part, b_row, c, c_row, at, last, add);
        else
          column_of_blocks<T, 1, true>(rows, part, a_part, b_part, b_row, c, c_row, at, last, add);
      } else if (two) {
        column_of_blocks<T, 2, false>(rows, part, a_part, b_part, b_row, c, c_row, at, last, add);
      } else {
        column_of_blocks<T, 1, false>(rows, part, a_part, b_part, b_row, c, c_row, at, last, add);
      }
    }
    if (kTail == Tail::kStore) break;
  }
}

}  // namespace
