// Whole batches: the functions that Python calls. Compiled once for each instruction set, with FASTDRAW_LEVEL its name.
//
// All return 0, 1 where memory ran out, or 2 where what a read kept does not fit its windows.

#include "lstm.h"
#include "pieces.h"
#include "sizes.h"
#include "whole.h"
#include "window.h"

#define FASTDRAW_JOIN_(a, b) a##b
#define FASTDRAW_JOIN(a, b) FASTDRAW_JOIN_(a, b)

namespace {

// Read, write and their gradients are one function of what is given (in) and what is asked for (out); the rest is null. Images
// are contiguous and small: each is read as a whole by one thread. Those of window.h may be large.
//   read: image -> patch   write: patch -> image   gradients: image and patch -> params, and image or patch
template <class T>
struct WholeJob {
  Shape shape;
  const T *params, *image, *patch;
  T *image_out, *patch_out, *params_out;
};

template <class T>
void read_and_write(const WholeJob<T>& job, Scratch<T>& w, int64_t b) {
  const Shape& s = job.shape;
  const int64_t pixels = s.height * s.width, numel = s.numel();
  open_window(w, s, job.params + b * s.numbers, job.params_out != nullptr, job.patch_out != nullptr);
  for (int64_t c = 0; c < s.channels; ++c) {
    const int64_t channel = b * s.channels + c;
    if (job.image) filter_columns(w, s, job.image + channel * pixels, job.params_out ? 3 * s.rows : s.rows, 0, s.width);
    if (job.patch_out) read_patch(w, s, job.patch_out + channel * numel, 0, s.width);
    if (job.patch) spread_patch(w, s, job.patch + channel * numel, 0, s.width);
    if (job.image_out) write_columns(w, s, job.image_out + channel * pixels, 0, s.width);
    if (job.params_out) add_window_gradient(w, s, c == 0, s.width);
  }
  if (job.params_out) close_window_gradient(w, s, 0, s.width);
}

template <class T>
bool whole_images(void* data, int64_t begin, int64_t end) {
  const WholeJob<T>& job = *static_cast<WholeJob<T>*>(data);
  Scratch<T> w;
  if (!make_scratch(w, job.shape, job.shape.width)) return false;
  for (int64_t b = begin; b < end; ++b) {
    read_and_write(job, w, b);
    if (job.params_out) window_gradient(w, job.shape, w.moments, job.params + b * job.shape.numbers, job.params_out + b * job.shape.numbers);
  }
  return true;
}

template <class T>
int whole(const WholeSizes& sizes, const T* params, const T* image, const T* patch, T* image_out, T* patch_out,
            T* params_out) {
  const Shape s{sizes.channels, sizes.height, sizes.width, sizes.rows, sizes.columns, int(sizes.power), sizes.numbers};
  WholeJob<T> job{s, params, image, patch, image_out, patch_out, params_out};
  // Waking threads takes microseconds, in which one thread does this much.
  const int64_t products = sizes.batch * s.channels * s.rows * s.height * s.width;
  return fastdraw_parallel(sizes.batch, products < 1 << 16 ? 1 : sizes.threads, whole_images<T>, &job) ? 0 : 1;
}

template <class T>
struct FilterbankJob {
  Shape shape;
  const T *params, *grad_y, *grad_x, *grad_gamma;
  T *y, *x, *gamma, *params_out;
};

// Rows of `columns` numbers, with zeros behind them up to `filled`.
template <class T>
void copy_rows(const T* from, int64_t from_row, T* to, int64_t to_row, int64_t rows, int64_t columns, int64_t filled) {
  for (int64_t i = 0; i < rows; ++i) {
    memcpy(to + i * to_row, from + i * from_row, size_t(columns) * sizeof(T));
    memset(to + i * to_row + columns, 0, size_t(filled - columns) * sizeof(T));
  }
}

template <class T>
bool filterbanks(void* data, int64_t begin, int64_t end) {
  const FilterbankJob<T>& job = *static_cast<FilterbankJob<T>*>(data);
  const Shape& s = job.shape;
  const int64_t n = s.rows, m = s.columns;
  Scratch<T> w;
  if (!make_scratch(w, s, s.width > s.height ? s.width : s.height, false)) return false;
  for (int64_t b = begin; b < end; ++b) {
    const T* params = job.params + b * s.numbers;
    open_window(w, s, params, job.params_out != nullptr, false);
    if (job.params_out) {
      copy_rows(job.grad_y + b * n * s.height, s.height, w.v, w.row, n, s.height, w.y.stride);
      add_moments(n, w.y.stride, w.v, w.row, w.y.rows, w.y.stride, w.moments);
      copy_rows(job.grad_x + b * m * s.width, s.width, w.grad_x, w.row, m, s.width, w.x.stride);
      add_moments(m, w.x.stride, w.grad_x, w.row, w.x.rows, w.x.stride, w.moments + 3 * n);
      finish_params(w.y, w.x, w.window, s, w.moments, job.grad_gamma[b] * w.window.gain, params, job.params_out + b * s.numbers);
    } else {
      copy_rows(w.y.rows, w.y.stride, job.y + b * n * s.height, s.height, n, s.height, s.height);
      copy_rows(w.x.rows, w.x.stride, job.x + b * m * s.width, s.width, m, s.width, s.width);
      job.gamma[b] = w.window.gain;
    }
  }
  return true;
}

template <class T>
int filterbank(const FilterbankSizes& sizes, const T* params, T* y, T* x, T* gamma) {
  const Shape s{1, sizes.height, sizes.width, sizes.rows, sizes.columns, 1, sizes.numbers};
  FilterbankJob<T> job{s, params, nullptr, nullptr, nullptr, y, x, gamma, nullptr};
  return fastdraw_parallel(sizes.batch, sizes.threads, filterbanks<T>, &job) ? 0 : 1;
}

template <class T>
int filterbank_backward(const FilterbankSizes& sizes, const T* params, const T* grad_y, const T* grad_x, const T* grad_gamma,
                        T* out) {
  const Shape s{1, sizes.height, sizes.width, sizes.rows, sizes.columns, 1, sizes.numbers};
  FilterbankJob<T> job{s, params, grad_y, grad_x, grad_gamma, nullptr, nullptr, nullptr, out};
  return fastdraw_parallel(sizes.batch, sizes.threads, filterbanks<T>, &job) ? 0 : 1;
}

template <class T>
int lstm_forward(const LstmSizes& sizes, T* gates, const T* recurrent, const T* bias_ih, const T* bias_hh, const T* c, T* h_new,
                 T* c_new) {
  LstmForward<T> job{sizes.hidden, gates, recurrent, bias_ih, bias_hh, c, h_new, c_new};
  return fastdraw_parallel(sizes.batch, sizes.threads, lstm_forward_rows<T>, &job) ? 0 : 1;
}

template <class T>
int lstm_backward(const LstmSizes& sizes, const T* grad_h, const T* grad_c, const T* gates, const T* c, const T* c_new,
                  T* grad_gates, T* grad_c_old, T* grad_bias) {
  LstmBackward<T> job{sizes.batch, sizes.hidden, grad_h, grad_c, gates, c, c_new, grad_gates, grad_c_old, grad_bias};
  const int64_t strips = (sizes.hidden + kLstmStrip<T> - 1) / kLstmStrip<T>;
  return fastdraw_parallel(strips, sizes.threads, lstm_backward_strips<T>, &job) ? 0 : 1;
}

// For tests.
template <class T>
int elementwise(const ElementwiseSizes& sizes, const T* x, T* y) {
  const int64_t n = sizes.count, function = sizes.function;
  for (int64_t i = 0; i < n; i += kLanes<T>) {
    const Vector<T> v = load_some_as<T>(x + i, n - i);
    store_some_as<T>(y + i, function == 0 ? vector_exp(v) : (function == 1 ? vector_sigmoid(v) : vector_tanh(v)), n - i);
  }
  return 0;
}

#define FASTDRAW_BOTH(f) reinterpret_cast<const void*>(&f<float>), reinterpret_cast<const void*>(&f<double>)

const void* const kernels[] = {FASTDRAW_BOTH(whole),        FASTDRAW_BOTH(filterbank),    FASTDRAW_BOTH(filterbank_backward),
                               FASTDRAW_BOTH(lstm_forward), FASTDRAW_BOTH(lstm_backward), FASTDRAW_BOTH(elementwise),
                               FASTDRAW_BOTH(windows),      FASTDRAW_BOTH(seen_pixels),
                               FASTDRAW_PIECES(float, float), FASTDRAW_PIECES(double, double), FASTDRAW_PIECES(float, BFloat16)};

}  // namespace

extern "C" __attribute__((visibility("hidden"))) const void* const* FASTDRAW_JOIN(fastdraw_kernels_, FASTDRAW_LEVEL)() {
  return kernels;
}
