// What follows the recurrence's matrix products, tile by tile: the LSTM's nonlinearity, the latent's sample, and their reverse.
//
// T is what is computed in, S what operands of products are kept in. Rows of what lies inside a wider buffer are `..._row`
// apart. Each is called with a tile's first row, its rows, its panel, its vectors, and the sums: [row][4 vectors].
#pragma once

#include "product.h"

namespace {

template <class T>
FASTDRAW_INLINE Vector<T> sum_at(const T* sums, int64_t row, int vector) {
  return load(sums + (row * kTileVectors + vector) * kLanes<T>);
}

// sums + bias, as they are.
template <class T, class S>
struct Biased {
  static constexpr bool kWholeRows = false;
  int64_t outputs, out_row;
  const S* bias;
  T* out;

  FASTDRAW_INLINE void operator()(int64_t first, int64_t rows, int64_t panel, int vectors, const T* sums) const {
    for (int v = 0; v < vectors; ++v) {
      const int64_t column = panel * kTileWidth<T> + v * kLanes<T>, count = outputs - column;
      const Vector<T> added = load_some_as<T>(bias + column, count);
      for (int64_t r = 0; r < rows; ++r)
        store_some_as<T>(out + (first + r) * out_row + column, sum_at(sums, r, v) + added, count);
    }
  }
};

// Of gates i, f, g, o of one vector of hidden units: c' = f c + i g, h' = o tanh(c').
template <class T, class S>
struct Cell {
  static constexpr bool kWholeRows = false;
  int64_t hidden, h_row, h_row_2;
  const S* bias;    // [4 H]; null where every row has its own:
  const T* biases;  // [B, 4 H]
  const T* c;       // [B, H]
  S* gates;       // [B, 4 H]: activated i, f, g, o
  T* c_new;
  S *h, *h_2;  // [B, H]; the second may be null.

  FASTDRAW_INLINE void operator()(int64_t first, int64_t rows, int64_t panel, int, const T* sums) const {
    typedef Vector<T> V;
    const int64_t j = panel * kLanes<T>, count = hidden - j;
    V added[4] = {};
    for (int k = 0; bias && k < 4; ++k) added[k] = load_some_as<T>(bias + k * hidden + j, count);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t b = first + r;
      V gate[4];
      for (int k = 0; k < 4; ++k) {
        gate[k] = sum_at(sums, r, k) + (bias ? added[k] : load_some_as<T>(biases + (4 * b + k) * hidden + j, count));
        gate[k] = k == 2 ? vector_tanh(gate[k]) : vector_sigmoid(gate[k]);
        store_some_as<T>(gates + (4 * b + k) * hidden + j, gate[k], count);
      }
      const V c_now = gate[1] * load_some_as<T>(c + b * hidden + j, count) + gate[0] * gate[2];
      const V h_now = gate[3] * vector_tanh(c_now);
      store_some_as<T>(c_new + b * hidden + j, c_now, count);
      store_some_as<T>(h + b * h_row + j, h_now, count);
      if (h_2) store_some_as<T>(h_2 + b * h_row_2 + j, h_now, count);
    }
  }
};

// From grad_h = sums + others to the gradient of the gates before their nonlinearity.
template <class T, class S>
struct CellBackward {
  static constexpr bool kWholeRows = false;
  int64_t hidden, other_row, other_row_2;
  const S *other, *other_2;  // [B, H] each; may be null.
  const S* gates;
  const T *c, *c_new;
  T* grad_c;      // [B, H]: of c_new, and then of c
  S* grad_gates;  // [B, 4 H]

  FASTDRAW_INLINE void operator()(int64_t first, int64_t rows, int64_t panel, int vectors, const T* sums) const {
    typedef Vector<T> V;
    for (int64_t r = 0; r < rows; ++r)
      for (int v = 0; v < vectors; ++v) {
        const int64_t b = first + r, j = panel * kTileWidth<T> + v * kLanes<T>, count = hidden - j, at = b * hidden + j;
        V gate[4];
        for (int k = 0; k < 4; ++k) gate[k] = load_some_as<T>(gates + (4 * b + k) * hidden + j, count);
        const V i = gate[0], f = gate[1], g = gate[2], o = gate[3];
        V grad_h = sum_at(sums, r, v);
        if (other) grad_h += load_some_as<T>(other + b * other_row + j, count);
        if (other_2) grad_h += load_some_as<T>(other_2 + b * other_row_2 + j, count);
        const V tanh_c = vector_tanh(load_some_as<T>(c_new + at, count));
        const V grad_now = load_some_as<T>(grad_c + at, count) + grad_h * o * (1 - tanh_c * tanh_c);
        const V grads[4] = {grad_now * g * i * (1 - i), grad_now * load_some_as<T>(c + at, count) * f * (1 - f),
                            grad_now * i * (1 - g * g), grad_h * tanh_c * o * (1 - o)};
        for (int k = 0; k < 4; ++k) store_some_as<T>(grad_gates + (4 * b + k) * hidden + j, grads[k], count);
        store_some_as<T>(grad_c + at, grad_now * f, count);
      }
  }
};

// Of mu and log sigma: z = mu + sigma noise, and the KL, summed over latents: all panels of a row by one thread, in order.
template <class T, class S>
struct Latent {
  static constexpr bool kWholeRows = true;
  int64_t latents, z_row;
  const S* bias;   // [2 Z]
  const T* noise;  // [B, Z]
  T* out;          // [B, 2 Z]: mu, log sigma
  S* z;
  T* kl;  // [B]

  FASTDRAW_INLINE void operator()(int64_t first, int64_t rows, int64_t panel, int vectors, const T* sums) const {
    typedef Vector<T> V;
    const int64_t n = latents;
    for (int64_t r = 0; r < rows; ++r) {
      V total{};
      const int64_t b = first + r;
      for (int v = 0; v < vectors / 2; ++v) {
        // What lies behind the last latent is zero, weight and bias: its mu, log sigma and KL are zero too.
        const int64_t j = (2 * panel + v) * kLanes<T>, count = n - j;
        const V mu = sum_at(sums, r, v) + load_some_as<T>(bias + j, count);
        const V log_sigma = sum_at(sums, r, vectors / 2 + v) + load_some_as<T>(bias + n + j, count);
        const V sigma = vector_exp(log_sigma);
        store_some_as<T>(out + b * 2 * n + j, mu, count);
        store_some_as<T>(out + b * 2 * n + n + j, log_sigma, count);
        store_some_as<T>(z + b * z_row + j, mu + sigma * load_some_as<T>(noise + b * n + j, count), count);
        total += T(0.5) * (mu * mu + sigma * sigma - 1) - log_sigma;
      }
      kl[b] = (panel ? kl[b] : T(0)) + sum<T>(total);
    }
  }
};

// The gradient of a layer's inputs, and of the first `latents` of them, which are z, that of mu, log sigma and noise.
template <class T, class S>
struct InputBackward {
  static constexpr bool kWholeRows = false;
  int64_t inputs, latents;
  S* grad_inputs;                     // [B, inputs]
  const T *latent, *noise, *grad_kl;  // [B, 2 Z], [B, Z], [B]
  S* grad_latent;                     // [B, 2 Z]
  T* grad_noise;                      // [B, Z], or null.

  FASTDRAW_INLINE void operator()(int64_t first, int64_t rows, int64_t panel, int vectors, const T* sums) const {
    for (int v = 0; v < vectors; ++v)
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t column = panel * kTileWidth<T> + v * kLanes<T>;
        store_some_as<T>(grad_inputs + (first + r) * inputs + column, sum_at(sums, r, v), inputs - column);
        if (column < latents) to_latent(first + r, column, sum_at(sums, r, v));
      }
  }

  FASTDRAW_INLINE void to_latent(int64_t b, int64_t j, Vector<T> grad_z) const {
    typedef Vector<T> V;
    const int64_t n = latents, count = n - j, at = b * 2 * n + j;
    const V mu = load_some_as<T>(latent + at, count), sigma = vector_exp(load_some_as<T>(latent + at + n, count));
    store_some_as<T>(grad_latent + at, grad_z + grad_kl[b] * mu, count);
    const V through_noise = grad_z * sigma * load_some_as<T>(noise + b * n + j, count);
    // In this order: sigma^2 may be infinite where sigma is not, and a KL that nobody asked about has a gradient of zero.
    store_some_as<T>(grad_latent + at + n, through_noise + (grad_kl[b] * sigma * sigma - grad_kl[b]), count);
    if (grad_noise) store_some_as<T>(grad_noise + b * n + j, grad_z * sigma, count);
  }
};

}  // namespace
