// Reading and writing one image as a whole, whatever its window sees: pieces that a caller strings together, with all scratch in its thread's own arena.
//
// L = gamma^power sum_c <P_c, F_Y I_c F_X^T>. With V = gamma^power P F_X and T = F_Y I, both [N, W], for one channel:
//   the read is  gamma^power T F_X^T        the write is F_Y^T V
//   dL/dF_X  is  gamma^power P^T T          dL/dF_Y is V I^T
// and since only the products of dL/dF_Y with the three rows F, F d and F e are wanted, the rows of V are multiplied with those
// of (F, F d, F e) I instead: T with three times the rows, whose first N are needed anyway, and dL/dF_Y itself is never made.
//
// A piece handles the columns [from, from + columns) of an image, so that one large image can be shared by several threads.
#pragma once

#include "filterbank.h"
#include "matmul.h"
#include "parallel.h"

namespace {

template <class T>
struct Scratch {
  Window<T> window;
  Axis<T> y, x;
  int64_t x_transposed_row;  // N_x, padded.
  T* x_transposed;           // [W, padded N_x]
  int64_t row;               // Of the three below.
  T* t;                      // [3 N_y, row]
  T* v;                      // [N_y, row]
  T* grad_x;                 // [N_x, row]
  T* scaled;                 // [N_y, N_x]: gamma^power P
  T* product;                // [N_y, padded N_x]
  T* moments;                // [3 N_y + 3 N_x]: of y, then of x.
};

template <class T>
struct Layout {
  T* at;
  T* take(int64_t n) {
    T* p = at;
    if (at) at += (n + 15) / 16 * 16;
    count += (n + 15) / 16 * 16;
    return p;
  }
  int64_t count = 0;
};

// Shares memory out for pieces of at most `columns` columns; without `patches` for filters and their gradients alone.
template <class T>
void lay_out(Layout<T>& layout, Scratch<T>& w, const Shape& s, int64_t columns, bool patches = true) {
  const int64_t n = s.rows, m = s.columns;
  w.y.length = s.height, w.y.stride = padded<T>(s.height);
  w.x.length = s.width, w.x.stride = padded<T>(s.width);
  w.x_transposed_row = padded<T>(m), w.row = padded<T>(columns);
  w.y.rows = layout.take(3 * n * w.y.stride);
  w.x.rows = layout.take(3 * m * w.x.stride);
  w.y.mean_step = layout.take(n), w.y.mean_exponent = layout.take(n);
  w.x.mean_step = layout.take(m), w.x.mean_exponent = layout.take(m);
  w.v = layout.take(n * w.row), w.grad_x = layout.take(m * w.row), w.moments = layout.take(3 * (n + m));
  if (!patches) return;
  w.x_transposed = layout.take(s.width * w.x_transposed_row), w.t = layout.take(3 * n * w.row);
  w.scaled = layout.take(n * m), w.product = layout.take(n * w.x_transposed_row);
}

// Lays a whole scratch out in the thread's memory. False where that ran out.
template <class T>
bool make_scratch(Scratch<T>& w, const Shape& s, int64_t columns, bool patches = true) {
  // Once to count, once to share out.
  for (T* base = nullptr;;) {
    Layout<T> layout{base};
    lay_out(layout, w, s, columns, patches);
    if (base) return true;
    base = static_cast<T*>(fastdraw_scratch(size_t(layout.count) * sizeof(T)));
    if (!base) return false;
  }
}

// Opens an image's window: to be called before the pieces below.
template <class T>
void open_window(Scratch<T>& w, const Shape& s, const T* params, bool gradients, bool reads) {
  w.window = window_of(params, s);
  if (gradients) {
    fill_rows<T, true>(w.y, s.rows, w.window.y);
    fill_rows<T, true>(w.x, s.columns, w.window.x);
    memset(w.moments, 0, size_t(3 * s.filters()) * sizeof(T));
  } else {
    fill_rows<T, false>(w.y, s.rows, w.window.y);
    fill_rows<T, false>(w.x, s.columns, w.window.x);
  }
  if (reads)
    for (int64_t i = 0; i < s.columns; ++i)
      for (int64_t a = 0; a < s.width; ++a) w.x_transposed[a * w.x_transposed_row + i] = w.x.rows[i * w.x.stride + a];
}

// T, with `rows` N_y or 3 N_y: one channel's image [H, W] through the filters of y.
template <class T>
void filter_columns(Scratch<T>& w, const Shape& s, const T* image, int64_t rows, int64_t from, int64_t columns) {
  const Operand<T> filters{w.y.rows, w.y.stride, 1};
  if (columns % kLanes<T> == 0)
    matmul<T, Tail::kPadded>(rows, columns, s.height, filters, image + from, s.width, w.t, w.row);
  else
    matmul<T, Tail::kLoad>(rows, columns, s.height, filters, image + from, s.width, w.t, w.row);
}

// patch [N_y, N_x] = gamma^power T F_X^T, after filter_columns.
template <class T>
void read_patch(Scratch<T>& w, const Shape& s, T* patch, int64_t from, int64_t columns) {
  const int64_t row = w.x_transposed_row;
  matmul<T, Tail::kPadded>(s.rows, s.columns, columns, {w.t, w.row, 1}, w.x_transposed + from * row, row, w.product, row);
  for (int64_t i = 0; i < s.rows; ++i)
    for (int64_t j = 0; j < s.columns; ++j) patch[i * s.columns + j] = w.window.gain * w.product[i * row + j];
}

// V = gamma^power P F_X, from one channel's patch [N_y, N_x].
template <class T>
void spread_patch(Scratch<T>& w, const Shape& s, const T* patch, int64_t from, int64_t columns) {
  for (int64_t i = 0; i < s.numel(); ++i) w.scaled[i] = w.window.gain * patch[i];
  matmul<T, Tail::kPadded>(s.rows, columns, s.columns, {w.scaled, s.columns, 1}, w.x.rows + from, w.x.stride, w.v, w.row);
}

// image [H, W] = F_Y^T V, after spread_patch.
template <class T>
void write_columns(Scratch<T>& w, const Shape& s, T* image, int64_t from, int64_t columns) {
  matmul<T, Tail::kStore>(s.height, columns, s.rows, {w.y.rows, 1, w.y.stride}, w.v, w.row, image + from, s.width);
}

// One channel's part of dL/dF, after filter_columns with 3 N rows and spread_patch. The first channel starts dL/dF_X.
template <class T>
void add_window_gradient(Scratch<T>& w, const Shape& s, bool first, int64_t columns) {
  add_moments(s.rows, padded<T>(columns), w.v, w.row, w.t, w.row, w.moments);
  matmul<T, Tail::kPadded>(s.columns, columns, s.rows, {w.scaled, 1, s.columns}, w.t, w.row, w.grad_x, w.row, !first);
}

// After the last channel: dL/dF_X becomes moments too.
template <class T>
void close_window_gradient(Scratch<T>& w, const Shape& s, int64_t from, int64_t columns) {
  add_moments(s.columns, padded<T>(columns), w.grad_x, w.row, w.x.rows + from, w.x.stride, w.moments + 3 * s.rows);
}

// grad_params from moments summed over all pieces of one image.
template <class T>
void window_gradient(Scratch<T>& w, const Shape& s, const T* moments, const T* params, T* grad_params) {
  T product = 0;
  for (int64_t i = 0; i < s.rows; ++i) product += moments[i];
  finish_params(w.y, w.x, w.window, s, moments, T(s.power) * product, params, grad_params);
}

}  // namespace
