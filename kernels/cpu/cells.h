// The recurrence's pieces that follow a matrix product: the LSTM's nonlinearity and the latent's sample, and their reverse.
//
// T is what is computed in, S what operands of products are kept in. Rows of what lies inside a wider buffer are `..._row` apart.
#pragma once

#include "parallel.h"
#include "storage.h"

namespace {

template <class T, class S>
struct CellForward {
  int64_t hidden, h_row, h_row_2;
  const S *product, *bias;  // [B, 4 H], [4 H]
  const T* c;               // [B, H]
  S* gates;                 // [B, 4 H]: activated i, f, g, o
  T* c_new;
  S *h, *h_2;  // [B, H]; the second may be null.
};

template <class T, class S>
bool cell_forward_rows(void* data, int64_t begin, int64_t end) {
  typedef Vector<T> V;
  const CellForward<T, S>& job = *static_cast<CellForward<T, S>*>(data);
  const int64_t hidden = job.hidden;
  for (int64_t b = begin; b < end; ++b)
    for (int64_t j = 0; j < hidden; j += kLanes<T>) {
      const int64_t count = hidden - j;
      V gates[4];
      for (int k = 0; k < 4; ++k) {
        const int64_t column = k * hidden + j, at = b * 4 * hidden + column;
        gates[k] = load_some_as<T>(job.product + at, count) + load_some_as<T>(job.bias + column, count);
        gates[k] = k == 2 ? vector_tanh(gates[k]) : vector_sigmoid(gates[k]);
        store_some_as<T>(job.gates + at, gates[k], count);
      }
      const V c = gates[1] * load_some_as<T>(job.c + b * hidden + j, count) + gates[0] * gates[2];
      const V h = gates[3] * vector_tanh(c);
      store_some_as<T>(job.c_new + b * hidden + j, c, count);
      store_some_as<T>(job.h + b * job.h_row + j, h, count);
      if (job.h_2) store_some_as<T>(job.h_2 + b * job.h_row_2 + j, h, count);
    }
  return true;
}

template <class T, class S>
struct CellBackward {
  int64_t hidden, other_row, other_row_2;
  const S *grad_h, *other, *other_2;  // [B, H] each, summed; the others may be null.
  const S* gates;
  const T *c, *c_new;
  T* grad_c;      // [B, H]: of c_new, and then of c
  S* grad_gates;  // [B, 4 H]
};

template <class T, class S>
bool cell_backward_rows(void* data, int64_t begin, int64_t end) {
  typedef Vector<T> V;
  const CellBackward<T, S>& job = *static_cast<CellBackward<T, S>*>(data);
  const int64_t hidden = job.hidden;
  for (int64_t b = begin; b < end; ++b)
    for (int64_t j = 0; j < hidden; j += kLanes<T>) {
      const int64_t count = hidden - j, at = b * hidden + j;
      V gates[4];
      for (int k = 0; k < 4; ++k) gates[k] = load_some_as<T>(job.gates + (4 * b + k) * hidden + j, count);
      const V i = gates[0], f = gates[1], g = gates[2], o = gates[3];
      V grad_h = load_some_as<T>(job.grad_h + at, count);
      if (job.other) grad_h += load_some_as<T>(job.other + b * job.other_row + j, count);
      if (job.other_2) grad_h += load_some_as<T>(job.other_2 + b * job.other_row_2 + j, count);
      const V tanh_c = vector_tanh(load_some_as<T>(job.c_new + at, count));
      const V grad_c = load_some_as<T>(job.grad_c + at, count) + grad_h * o * (1 - tanh_c * tanh_c);
      const V grads[4] = {grad_c * g * i * (1 - i), grad_c * load_some_as<T>(job.c + at, count) * f * (1 - f),
                          grad_c * i * (1 - g * g), grad_h * tanh_c * o * (1 - o)};
      for (int k = 0; k < 4; ++k) store_some_as<T>(job.grad_gates + (4 * b + k) * hidden + j, grads[k], count);
      store_some_as<T>(job.grad_c + at, grad_c * f, count);
    }
  return true;
}

template <class T, class S>
struct LatentForward {
  int64_t latents, z_row;
  const S *product, *bias;  // [B, 2 Z], [2 Z]
  const T* noise;           // [B, Z]
  T* out;                   // [B, 2 Z]: mu, log sigma
  S* z;
  T* kl;  // [B]
};

template <class T, class S>
bool latent_forward_rows(void* data, int64_t begin, int64_t end) {
  typedef Vector<T> V;
  const LatentForward<T, S>& job = *static_cast<LatentForward<T, S>*>(data);
  const int64_t n = job.latents;
  for (int64_t b = begin; b < end; ++b) {
    V kl{};
    for (int64_t j = 0; j < n; j += kLanes<T>) {
      // What lies behind the last latent is loaded as zero: its mu, log sigma and KL are zero too.
      const int64_t count = n - j, at = b * 2 * n + j;
      const V mu = load_some_as<T>(job.product + at, count) + load_some_as<T>(job.bias + j, count);
      const V log_sigma = load_some_as<T>(job.product + at + n, count) + load_some_as<T>(job.bias + n + j, count);
      const V sigma = vector_exp(log_sigma);
      store_some_as<T>(job.out + at, mu, count);
      store_some_as<T>(job.out + at + n, log_sigma, count);
      store_some_as<T>(job.z + b * job.z_row + j, mu + sigma * load_some_as<T>(job.noise + b * n + j, count), count);
      kl += T(0.5) * (mu * mu + sigma * sigma - 1) - log_sigma;
    }
    job.kl[b] = sum<T>(kl);
  }
  return true;
}

template <class T, class S>
struct LatentBackward {
  int64_t latents, grad_z_row;
  const S* grad_z;                   // [B, Z]
  const T *latent, *noise, *grad_kl;  // [B, 2 Z], [B, Z], [B]
  S* grad_latent;                    // [B, 2 Z]
  T* grad_noise;                     // [B, Z], or null.
};

template <class T, class S>
bool latent_backward_rows(void* data, int64_t begin, int64_t end) {
  typedef Vector<T> V;
  const LatentBackward<T, S>& job = *static_cast<LatentBackward<T, S>*>(data);
  const int64_t n = job.latents;
  for (int64_t b = begin; b < end; ++b)
    for (int64_t j = 0; j < n; j += kLanes<T>) {
      const int64_t count = n - j, at = b * 2 * n + j;
      const V mu = load_some_as<T>(job.latent + at, count), sigma = vector_exp(load_some_as<T>(job.latent + at + n, count));
      const V grad_z = load_some_as<T>(job.grad_z + b * job.grad_z_row + j, count);
      const V noise = load_some_as<T>(job.noise + b * n + j, count);
      const T grad_kl = job.grad_kl[b];
      store_some_as<T>(job.grad_latent + at, grad_z + grad_kl * mu, count);
      store_some_as<T>(job.grad_latent + at + n, grad_z * sigma * noise + grad_kl * (sigma * sigma - 1), count);
      if (job.grad_noise) store_some_as<T>(job.grad_noise + b * n + j, grad_z * sigma, count);
    }
  return true;
}

}  // namespace
