// The rows of a filterbank along one axis, and the gradients that reach the window through them.
//
// One row: mu_i = centre + (i - (N-1)/2) delta; k the pixel nearest to mu; d = a - k; e = min(d (d + 2 (k - mu)) / 2 sigma^2,
// 1e4); F = exp(-e) / sum exp(-e). With G = dL/dF, dL/dmu = sum F G (d - mean d) / sigma^2 and dL/dlog sigma^2 =
// sum F G (e - mean e), means under F. So three rows, F, F d and F e, hold all that values and gradients need, and a gradient
// is the product of G with each of them. No comparison below is true for NaN, and none is turned into a whole number.
#pragma once

#include "vector.h"

namespace {

// Of the paper's window. One with a sigma and a stride of their own for x and y has 7:
// g~x, g~y, log sigma_x^2, log sigma_y^2, log delta~x, log delta~y, log gamma.
constexpr int kParams = 5, kMostParams = 7;

// A row of N filters stands at centre + (i - (N-1)/2) delta.
template <class T>
struct Line {
  T centre, delta, half_inverse_sigma2;
};

// What raw parameters mean, in pixels counted from 0, and the raw parameters' own limits.
template <class T>
struct Window {
  Line<T> y, x;
  T gain;
  // A NaN in any of the parameters.
  bool nan() const {
    const T any = x.centre + y.centre + x.delta + y.delta + x.half_inverse_sigma2 + y.half_inverse_sigma2 + gain;
    return any != any;
  }
};

struct Shape {
  int64_t channels, height, width;
  int64_t rows, columns;  // Filters along y and along x.
  int power;
  int64_t numbers = kParams;
  int64_t numel() const { return rows * columns; }
  int64_t filters() const { return rows + columns; }
};

template <class T>
FASTDRAW_INLINE T limit(int i) {
  return i < 2 ? T(1e30) : T(60);
}

template <class T>
FASTDRAW_INLINE T clamped(const T* params, int i) {
  const T bound = limit<T>(i), p = params[i];
  return p > bound ? bound : (p < -bound ? -bound : p);
}

FASTDRAW_INLINE float exponential(float x) { return __builtin_expf(x); }
FASTDRAW_INLINE double exponential(double x) { return __builtin_exp(x); }
FASTDRAW_INLINE float nearest_whole(float x) { return __builtin_rintf(x); }
FASTDRAW_INLINE double nearest_whole(double x) { return __builtin_rint(x); }

// gain is gamma^power.
template <class T>
Window<T> window_of(const T* params, const Shape& s) {
  const int own = s.numbers == kMostParams;
  const int64_t size = s.rows > s.columns ? s.rows : s.columns;
  const T unit = T((s.height > s.width ? s.height : s.width) - 1) / T(size > 1 ? size - 1 : 1);
  Window<T> w;
  w.x.centre = T(s.width + 1) / 2 * (clamped(params, 0) + 1) - 1;
  w.y.centre = T(s.height + 1) / 2 * (clamped(params, 1) + 1) - 1;
  w.x.half_inverse_sigma2 = w.y.half_inverse_sigma2 = T(0.5) * exponential(-clamped(params, 2));
  w.x.delta = w.y.delta = unit * exponential(clamped(params, 3 + own));
  if (own) {
    w.y.half_inverse_sigma2 = T(0.5) * exponential(-clamped(params, 3));
    w.y.delta = unit * exponential(clamped(params, 5));
  }
  // One filter stands at the centre, whatever the stride says.
  if (s.columns == 1) w.x.delta = 0;
  if (s.rows == 1) w.y.delta = 0;
  w.gain = exponential(T(s.power) * clamped(params, int(s.numbers) - 1));
  return w;
}

template <class T>
struct Axis {
  int64_t length;
  int64_t stride;  // length, padded to whole vectors.
  T* rows;         // [N, stride]: F. With gradients [3 N, stride]: F, then F d, then F e. Zero behind `length`.
  T* mean_step;    // [N]: sum F d
  T* mean_exponent;  // [N]: sum F e
};

// e, which a pixel behind the image's end would make negative, and infinite where mu is far: it counts as 0 there, as F does.
template <class T>
FASTDRAW_INLINE Vector<T> exponent_of(Vector<T> step, T shift, T half_inverse_sigma2) {
  const Vector<T> e = step * (step + shift) * half_inverse_sigma2;
  return e > T(1e4) ? broadcast(T(1e4)) : (e < T(0) ? Vector<T>{} : e);
}

// Rows of kVectors vectors stay in registers between their two passes; 0 stands for any number of vectors.
template <class T, bool kGradients, int kVectors>
void fill_rows_of(const Axis<T>& axis, int64_t size, const Line<T>& line) {
  typedef Vector<T> V;
  const T centre = line.centre, delta = line.delta, half_inverse_sigma2 = line.half_inverse_sigma2;
  const int64_t vectors = kVectors ? kVectors : axis.stride / kLanes<T>, next = size * axis.stride;
  const T end = T(axis.length - 1);
  for (int64_t i = 0; i < size; ++i) {
    const T mu = centre + (T(i) - T(size - 1) / 2) * delta;
    T nearest = nearest_whole(mu);
    nearest = nearest < 0 ? T(0) : (nearest > end ? end : nearest);
    const T shift = 2 * (nearest - mu);
    T* row = axis.rows + i * axis.stride;
    V kept[kVectors ? kVectors : 1], total{};
    for (int64_t v = 0; v < vectors; ++v) {
      const V pixel = iota<T>() + T(v * kLanes<T>);
      V f = vector_exp_in_range(-exponent_of<T>(pixel - nearest, shift, half_inverse_sigma2));
      f = pixel > end ? V{} : f;
      total += f;
      if (kVectors)
        kept[v] = f;
      else
        store(row + v * kLanes<T>, f);
    }
    const T scale = 1 / sum<T>(total);
    V steps{}, exponents{};
    for (int64_t v = 0; v < vectors; ++v) {
      T* to = row + v * kLanes<T>;
      const V f = (kVectors ? kept[v] : load(to)) * scale;
      store(to, f);
      if (kGradients) {
        const V step = iota<T>() + T(v * kLanes<T>) - nearest, f_step = f * step, f_exponent = f * exponent_of<T>(step, shift, half_inverse_sigma2);
        store(to + next, f_step);
        store(to + 2 * next, f_exponent);
        steps += f_step;
        exponents += f_exponent;
      }
    }
    if (kGradients) {
      axis.mean_step[i] = sum<T>(steps);
      axis.mean_exponent[i] = sum<T>(exponents);
    }
  }
}

template <class T, bool kGradients>
void fill_rows(const Axis<T>& axis, int64_t size, const Line<T>& line) {
  switch (axis.stride / kLanes<T>) {
    case 1: return fill_rows_of<T, kGradients, 1>(axis, size, line);
    case 2: return fill_rows_of<T, kGradients, 2>(axis, size, line);
    case 4: return fill_rows_of<T, kGradients, 4>(axis, size, line);
    default: return fill_rows_of<T, kGradients, 0>(axis, size, line);
  }
}

// From moments [3 N]: the products of dL/dF with F, F d and F e, row by row.
template <class T>
struct AxisGradient {
  T centre, log_delta, log_sigma2;
};

template <class T>
AxisGradient<T> axis_gradient(const Axis<T>& axis, int64_t size, const T* moments, const Line<T>& line) {
  AxisGradient<T> g{0, 0, 0};
  for (int64_t i = 0; i < size; ++i) {
    const T grad_mu = 2 * line.half_inverse_sigma2 * (moments[size + i] - axis.mean_step[i] * moments[i]);
    g.centre += grad_mu;
    g.log_delta += grad_mu * (T(i) - T(size - 1) / 2) * line.delta;
    g.log_sigma2 += moments[2 * size + i] - axis.mean_exponent[i] * moments[i];
  }
  return g;
}

// Adds to moments [3 N] the products of the rows of g [N, g_row] with those of f [3 N, f_row], over `columns` padded columns.
template <class T>
void add_moments(int64_t size, int64_t columns, const T* g, int64_t g_row, const T* f, int64_t f_row, T* moments) {
  for (int64_t i = 0; i < size; ++i) {
    Vector<T> totals[3] = {};
    for (int64_t a = 0; a < columns; a += kLanes<T>) {
      const Vector<T> v = load(g + i * g_row + a);
      for (int part = 0; part < 3; ++part) totals[part] += v * load(f + (part * size + i) * f_row + a);
    }
    for (int part = 0; part < 3; ++part) moments[part * size + i] += sum<T>(totals[part]);
  }
}

// Zero beyond the limits of the raw parameters, as clamping makes it. moments: of y's filters, then of x's, 3 each;
// grad_log_gamma is dL/dlog gamma.
template <class T>
void finish_params(const Axis<T>& y, const Axis<T>& x, const Window<T>& w, const Shape& s, const T* moments, T grad_log_gamma,
                   const T* params, T* grad_params) {
  const AxisGradient<T> gy = axis_gradient(y, s.rows, moments, w.y);
  const AxisGradient<T> gx = axis_gradient(x, s.columns, moments + 3 * s.rows, w.x);
  const bool own = s.numbers == kMostParams;
  const T centre_x = gx.centre * (T(x.length + 1) / 2), centre_y = gy.centre * (T(y.length + 1) / 2);
  const T grads[kMostParams] = {centre_x,
                                centre_y,
                                own ? gx.log_sigma2 : gx.log_sigma2 + gy.log_sigma2,
                                own ? gy.log_sigma2 : gx.log_delta + gy.log_delta,
                                own ? gx.log_delta : grad_log_gamma,
                                gy.log_delta,
                                grad_log_gamma};
  for (int i = 0; i < s.numbers; ++i) {
    const bool outside = params[i] > limit<T>(i) || params[i] < -limit<T>(i);
    grad_params[i] = outside ? T(0) : grads[i];
  }
}

}  // namespace
