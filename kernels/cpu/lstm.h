// What is not a matrix product in one LSTM step, with gates i, f, g, o:
//   c' = f c + i g,  h' = o tanh(c')          i, f, o through the sigmoid, g through tanh
// and its gradient to the gates before their nonlinearity, to c and to the biases.
#pragma once

#include "parallel.h"
#include "storage.h"

namespace {

template <class T>
struct LstmForward {
  int64_t hidden;
  T* gates;  // [B, 4 H]: x W_ih^T, activated in place.
  const T *recurrent, *bias_ih, *bias_hh, *c;  // [B, 4 H]: h W_hh^T; [4 H]; [4 H]; [B, H]
  T *h_new, *c_new;
};

template <class T>
bool lstm_forward_rows(void* data, int64_t begin, int64_t end) {
  typedef Vector<T> V;
  const LstmForward<T>& job = *static_cast<LstmForward<T>*>(data);
  const int64_t hidden = job.hidden;
  for (int64_t b = begin; b < end; ++b)
    for (int64_t j = 0; j < hidden; j += kLanes<T>) {
      const int64_t count = hidden - j;
      V gates[4];
      for (int k = 0; k < 4; ++k) {
        const int64_t column = k * hidden + j, at = b * 4 * hidden + column;
        const V bias = load_some_as<T>(job.bias_ih + column, count) + load_some_as<T>(job.bias_hh + column, count);
        gates[k] = load_some_as<T>(job.gates + at, count) + load_some_as<T>(job.recurrent + at, count) + bias;
        gates[k] = k == 2 ? vector_tanh(gates[k]) : vector_sigmoid(gates[k]);
        store_some_as<T>(job.gates + at, gates[k], count);
      }
      const V c = gates[1] * load_some_as<T>(job.c + b * hidden + j, count) + gates[0] * gates[2];
      store_some_as<T>(job.c_new + b * hidden + j, c, count);
      store_some_as<T>(job.h_new + b * hidden + j, gates[3] * vector_tanh(c), count);
    }
  return true;
}

template <class T>
struct LstmBackward {
  int64_t batch, hidden;
  const T *grad_h, *grad_c;  // [B, H], or null.
  const T *gates, *c, *c_new;
  T *grad_gates, *grad_c_old, *grad_bias;  // [B, 4 H], [B, H], [4 H]
};

// A task is one strip of columns, all images of it, so that its part of the bias gradient is summed in one order.
template <class T>
constexpr int64_t kLstmStrip = 128 / int64_t(sizeof(T));

template <class T>
bool lstm_backward_strips(void* data, int64_t begin, int64_t end) {
  typedef Vector<T> V;
  const LstmBackward<T>& job = *static_cast<LstmBackward<T>*>(data);
  const int64_t hidden = job.hidden;
  const int64_t stop = end * kLstmStrip<T> < hidden ? end * kLstmStrip<T> : hidden;
  for (int64_t j = begin * kLstmStrip<T>; j < stop; j += kLanes<T>) {
    const int64_t count = stop - j;
    V bias[4] = {};
    for (int64_t b = 0; b < job.batch; ++b) {
      const int64_t at = b * hidden + j;
      V gates[4];
      for (int k = 0; k < 4; ++k) gates[k] = load_some_as<T>(job.gates + (4 * b + k) * hidden + j, count);
      const V i = gates[0], f = gates[1], g = gates[2], o = gates[3];
      const V tanh_c = vector_tanh(load_some_as<T>(job.c_new + at, count));
      const V grad_h = job.grad_h ? load_some_as<T>(job.grad_h + at, count) : V{};
      V grad_c = job.grad_c ? load_some_as<T>(job.grad_c + at, count) : V{};
      grad_c += grad_h * o * (1 - tanh_c * tanh_c);
      const V grads[4] = {grad_c * g * i * (1 - i), grad_c * load_some_as<T>(job.c + at, count) * f * (1 - f),
                          grad_c * i * (1 - g * g), grad_h * tanh_c * o * (1 - o)};
      for (int k = 0; k < 4; ++k) {
        bias[k] += grads[k];
        store_some_as<T>(job.grad_gates + (4 * b + k) * hidden + j, grads[k], count);
      }
      store_some_as<T>(job.grad_c_old + at, grad_c * f, count);
    }
    for (int k = 0; k < 4; ++k) store_some_as<T>(job.grad_bias + k * hidden + j, bias[k], count);
  }
  return true;
}

}  // namespace
