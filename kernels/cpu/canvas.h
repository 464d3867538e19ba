// The recurrence's piece around the canvas: write_t and the read that follows it, for one image at a time, and their reverse.
//
//   canvas_t = canvas_{t-1} + write (8)    x^ = x - sigmoid(canvas_t) (3)    r = [read of x, read of x^] (4)
//
// Without read attention r is x^ alone: glimpses.py multiplies x once for all glimpses.
//
// One image stays in the nearest cache from the write to the read. x^ and the filterbanks live in the thread's scratch only,
// and are made again in the reverse.
#pragma once

#include "whole.h"
#include "storage.h"

namespace {

template <class T, class S>
struct CanvasJob {
  int64_t channels, height, width, read_size, write_size;  // Sizes are 0 without attention.
  int64_t head_row, r_row;
  bool writes, rebuild;
  const T* head;    // [B, head_row]: patch, params of the write, params of the read
  const T* before;  // [B, C, H, W]; forward only. May be `canvas`.
  T* canvas;
  const T* x;       // Null where nothing is read.
  S* r;             // [B, r_numel]; forward only.
  const S* grad_r;  // [B, r_numel], or null: reverse only, as all below.
  T* grad_canvas;
  S* grad_head;
  T* grad_x;  // Or null.
  int64_t pixels() const { return height * width; }
  int64_t numel() const { return channels * pixels(); }
  int64_t patch_numel() const { return write_size ? channels * write_size * write_size : numel(); }
  int64_t r_numel() const { return read_size ? 2 * channels * read_size * read_size : numel(); }
  Shape write_shape() const { return {channels, height, width, write_size, write_size, -1}; }
  Shape read_shape() const { return {2 * channels, height, width, read_size, read_size, 1}; }
};

// A thread's memory: two windows, one image [C, H, W] and one channel, and a read's or a patch's numbers.
template <class T>
struct CanvasScratch {
  Scratch<T> write, read;
  T *image, *channel, *patches, *grad_params;
};

template <class T, class S>
bool make_canvas_scratch(CanvasScratch<T>& w, const CanvasJob<T, S>& job) {
  for (T* base = nullptr;;) {
    Layout<T> layout{base};
    if (job.write_size) lay_out(layout, w.write, job.write_shape(), job.width);
    if (job.read_size) lay_out(layout, w.read, job.read_shape(), job.width);
    w.image = layout.take(job.numel());
    w.channel = layout.take(job.pixels());
    w.patches = layout.take(job.r_numel() > job.patch_numel() ? job.r_numel() : job.patch_numel());
    w.grad_params = layout.take(kParams);
    if (base) return true;
    base = static_cast<T*>(fastdraw_scratch(size_t(layout.count) * sizeof(T)));
    if (!base) return false;
  }
}

// x^ = x - sigmoid(canvas)
template <class T, class S>
FASTDRAW_INLINE void error_image(const T* x, const T* canvas, S* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    const Vector<T> s = vector_sigmoid(load_some_as<T>(canvas + i, count - i));
    store_some_as<T>(out + i, load_some_as<T>(x + i, count - i) - s, count - i);
  }
}

// out = a + scale b; out may be a.
template <class T>
FASTDRAW_INLINE void add_scaled(const T* a, T scale, const T* b, T* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes<T>)
    store_some_as<T>(out + i, load_some_as<T>(a + i, count - i) + scale * load_some_as<T>(b + i, count - i), count - i);
}

template <class T, class S>
bool canvas_tasks(void* data, int64_t begin, int64_t end) {
  const CanvasJob<T, S>& job = *static_cast<CanvasJob<T, S>*>(data);
  const int64_t pixels = job.pixels(), numel = job.numel();
  CanvasScratch<T> w;
  if (!make_canvas_scratch(w, job)) return false;
  for (int64_t b = begin; b < end; ++b) {
    const T* head = job.head + b * job.head_row;
    T* canvas = job.canvas + b * numel;
    const T* before = job.before + b * numel;
    if (job.writes && job.write_size) {
      const Shape s = job.write_shape();
      open_window(w.write, s, head + job.patch_numel(), false, false);
      for (int64_t c = 0; c < job.channels; ++c) {
        spread_patch(w.write, s, head + c * s.numel(), 0, s.width);
        write_columns(w.write, s, w.channel, 0, s.width);
        add_scaled(before + c * pixels, T(1), w.channel, canvas + c * pixels, pixels);
      }
    } else if (job.writes) {
      add_scaled(before, T(1), head, canvas, numel);
    }
    if (!job.x) continue;
    const T* x = job.x + b * numel;
    S* r = job.r + b * job.r_row;
    if (job.read_size) {
      error_image(x, canvas, w.image, numel);
      const Shape s = job.read_shape();
      const int64_t part = s.numel();
      open_window(w.read, s, head + job.head_row - kParams, false, true);
      for (int64_t c = 0; c < 2 * job.channels; ++c) {
        filter_columns(w.read, s, c < job.channels ? x + c * pixels : w.image + (c - job.channels) * pixels, s.rows, 0, s.width);
        read_patch(w.read, s, w.patches + c * part, 0, s.width);
      }
      convert<T>(w.patches, r, job.r_numel());
    } else {
      error_image(x, canvas, r, numel);
    }
  }
  return true;
}

// What x^, read as it is, sends back to the canvas.
template <class T, class S>
void error_backward(const CanvasJob<T, S>& job, int64_t b) {
  const int64_t numel = job.numel();
  const T* canvas = job.canvas + b * numel;
  const S* grad_r = job.grad_r + b * job.r_row;
  T* grad_canvas = job.grad_canvas + b * numel;
  for (int64_t i = 0; i < numel; i += kLanes<T>) {
    const int64_t count = numel - i;
    const Vector<T> sigmoid = vector_sigmoid(load_some_as<T>(canvas + i, count));
    const Vector<T> grad = load_some_as<T>(grad_r + i, count) * sigmoid * (1 - sigmoid);
    store_some_as<T>(grad_canvas + i, load_some_as<T>(grad_canvas + i, count) - grad, count);
  }
}

// What the read sends back: to the canvas through x^, to x, and to its window.
template <class T, class S>
void read_backward(const CanvasJob<T, S>& job, CanvasScratch<T>& w, int64_t b) {
  const int64_t pixels = job.pixels(), numel = job.numel();
  const T *x = job.x + b * numel, *canvas = job.canvas + b * numel;
  const T* params = job.head + (b + 1) * job.head_row - kParams;
  T *grad_canvas = job.grad_canvas + b * numel, *grad_x = job.grad_x ? job.grad_x + b * numel : nullptr;
  const Shape s = job.read_shape();
  convert<T>(job.grad_r + b * job.r_row, w.patches, job.r_numel());
  error_image(x, canvas, w.image, numel);
  open_window(w.read, s, params, true, false);
  for (int64_t c = 0; c < 2 * job.channels; ++c) {
    const bool is_error = c >= job.channels;
    const int64_t at = (is_error ? c - job.channels : c) * pixels;
    filter_columns(w.read, s, (is_error ? w.image : x) + at, 3 * s.rows, 0, s.width);
    spread_patch(w.read, s, w.patches + c * s.numel(), 0, s.width);
    if (is_error || grad_x) write_columns(w.read, s, w.channel, 0, s.width);
    add_window_gradient(w.read, s, c == 0, s.width);
    if (grad_x) add_scaled(grad_x + at, T(1), w.channel, grad_x + at, pixels);
    if (!is_error) continue;
    for (int64_t i = 0; i < pixels; i += kLanes<T>) {
      const int64_t count = pixels - i;
      const Vector<T> sigmoid = load_some_as<T>(x + at + i, count) - load_some_as<T>(w.image + at + i, count);
      const Vector<T> grad = load_some_as<T>(w.channel + i, count) * sigmoid * (1 - sigmoid);
      store_some_as<T>(grad_canvas + at + i, load_some_as<T>(grad_canvas + at + i, count) - grad, count);
    }
  }
  close_window_gradient(w.read, s, 0, s.width);
  window_gradient(w.read, s, w.read.moments, params, w.grad_params);
  convert<T>(w.grad_params, job.grad_head + (b + 1) * job.head_row - kParams, kParams);
}

// What the canvas sends back: to the patch and to the write's window; and the canvas before.
template <class T, class S>
void write_backward(const CanvasJob<T, S>& job, CanvasScratch<T>& w, int64_t b) {
  const int64_t pixels = job.pixels(), numel = job.numel(), patch_numel = job.patch_numel();
  const T *head = job.head + b * job.head_row, *grad_canvas = job.grad_canvas + b * numel;
  T* canvas = job.canvas + b * numel;
  S* grad_head = job.grad_head + b * job.head_row;
  if (!job.write_size) {
    convert<T>(grad_canvas, grad_head, patch_numel);
    if (job.rebuild) add_scaled(canvas, T(-1), head, canvas, numel);
    return;
  }
  const Shape s = job.write_shape();
  const int64_t part = s.numel();
  open_window(w.write, s, head + patch_numel, true, true);
  for (int64_t c = 0; c < job.channels; ++c) {
    filter_columns(w.write, s, grad_canvas + c * pixels, 3 * s.rows, 0, s.width);
    read_patch(w.write, s, w.patches + c * part, 0, s.width);
    spread_patch(w.write, s, head + c * part, 0, s.width);
    if (job.rebuild) {
      write_columns(w.write, s, w.channel, 0, s.width);
      add_scaled(canvas + c * pixels, T(-1), w.channel, canvas + c * pixels, pixels);
    }
    add_window_gradient(w.write, s, c == 0, s.width);
  }
  close_window_gradient(w.write, s, 0, s.width);
  window_gradient(w.write, s, w.write.moments, head + patch_numel, w.grad_params);
  convert<T>(w.patches, grad_head, patch_numel);
  convert<T>(w.grad_params, grad_head + patch_numel, kParams);
}

template <class T, class S>
bool canvas_backward_tasks(void* data, int64_t begin, int64_t end) {
  const CanvasJob<T, S>& job = *static_cast<CanvasJob<T, S>*>(data);
  CanvasScratch<T> w;
  if (!make_canvas_scratch(w, job)) return false;
  for (int64_t b = begin; b < end; ++b) {
    // Gradients that nothing sends are zero.
    memset(job.grad_head + b * job.head_row, 0, size_t(job.head_row) * sizeof(S));
    if (job.grad_r) job.read_size ? read_backward(job, w, b) : error_backward(job, b);
    if (job.writes) write_backward(job, w, b);
  }
  return true;
}

}  // namespace
