// The recurrence's pieces for whole batches, as Python calls them; see kernels/aten_pieces.py for what each must do.
// All return 0, or 1 where memory ran out.
#pragma once

#include "canvas.h"
#include "cells.h"
#include "peak.h"
#include "sizes.h"
#include "weight_gradient.h"

namespace {

// A weight as the products take it.
template <class T, class S>
int pack(const PackSizes& sizes, const S* first, const S* second, void* packed) {
  const int64_t columns = sizes.backward ? sizes.outputs : sizes.depth;
  const Weight<S> weight{first, second, columns, sizes.split, sizes.first_row};
  const PanelLayout layout{Order(sizes.order), sizes.outputs};
  PackJob<T, S> job{layout, sizes.depth, sizes.backward != 0, weight, static_cast<char*>(packed)};
  return fastdraw_parallel_each(layout.template panels<T>(), sizes.threads, pack_panels<T, S>, &job) ? 0 : 1;
}

template <class T, class S>
int linear(const LinearSizes& sizes, const S* a, const void* weight, const S* bias, T* out) {
  const Biased<T, S> after{sizes.product.outputs, sizes.out_row, bias, out};
  return product<T>(Order::kPlain, sizes.product, a, weight, after);
}

template <class T, class S>
int cell(const CellSizes& sizes, const S* inputs, const void* weight, const S* bias, const T* biases, const T* c, S* gates,
         T* c_new, S* h, S* h_2) {
  const Cell<T, S> after{sizes.product.outputs / 4, sizes.h_row, sizes.h_2_row, bias, biases, c, gates, c_new, h, h_2};
  return product<T>(Order::kGates, sizes.product, inputs, weight, after);
}

template <class T, class S>
int cell_backward(const CellBackwardSizes& sizes, const S* grad_out, const void* weight, const S* other, const S* other_2,
                  const S* gates, const T* c, const T* c_new, T* grad_c, S* grad_gates) {
  const CellBackward<T, S> after{sizes.product.outputs, sizes.other_row, sizes.other_2_row, other, other_2,
                                 gates, c, c_new, grad_c, grad_gates};
  return product<T>(Order::kPlain, sizes.product, grad_out, weight, after);
}

template <class T, class S>
int latent(const LatentSizes& sizes, const S* h, const void* weight, const S* bias, const T* noise, T* out, S* z, T* kl) {
  const Latent<T, S> after{sizes.product.outputs / 2, sizes.z_row, bias, noise, out, z, kl};
  return product<T>(Order::kLatents, sizes.product, h, weight, after);
}

template <class T, class S>
int input_backward(const InputBackwardSizes& sizes, const S* grad_out, const void* weight, S* grad_inputs, const T* latent, const T* noise,
                   const T* grad_kl, S* grad_latent, T* grad_noise) {
  const InputBackward<T, S> after{sizes.product.outputs, sizes.latents, grad_inputs, latent, noise, grad_kl, grad_latent, grad_noise};
  return product<T>(Order::kPlain, sizes.product, grad_out, weight, after);
}

template <class T, class S>
CanvasJob<T, S> canvas_job(const CanvasSizes& sizes, const T* head, T* canvas, const T* x) {
  CanvasJob<T, S> job{};
  job.channels = sizes.channels, job.height = sizes.height, job.width = sizes.width;
  job.read_size = sizes.read_size, job.write_size = sizes.write_size;
  job.head_row = sizes.head_row, job.r_row = sizes.r_row, job.writes = sizes.writes != 0, job.rebuild = sizes.rebuild != 0;
  job.head = head, job.canvas = canvas, job.x = x;
  return job;
}

template <class T, class S>
int canvas(const CanvasSizes& sizes, const T* head, const T* before, T* out, const T* x, S* r) {
  CanvasJob<T, S> job = canvas_job<T, S>(sizes, head, out, x);
  job.before = before, job.r = r;
  return fastdraw_parallel(sizes.batch, sizes.threads, canvas_tasks<T, S>, &job) ? 0 : 1;
}

template <class T, class S>
int canvas_backward(const CanvasSizes& sizes, const T* head, T* canvas, const T* x, const S* grad_r, T* grad_canvas,
                    S* grad_head, T* grad_x) {
  CanvasJob<T, S> job = canvas_job<T, S>(sizes, head, canvas, x);
  job.grad_r = grad_r, job.grad_canvas = grad_canvas, job.grad_head = grad_head, job.grad_x = grad_x;
  return fastdraw_parallel(sizes.batch, sizes.threads, canvas_backward_tasks<T, S>, &job) ? 0 : 1;
}

#define FASTDRAW_PIECE(f, T, S) reinterpret_cast<const void*>(&f<T, S>)
#define FASTDRAW_PIECES(T, S)                                                                                         \
  FASTDRAW_PIECE(pack, T, S), FASTDRAW_PIECE(linear, T, S), FASTDRAW_PIECE(cell, T, S), FASTDRAW_PIECE(cell_backward, T, S), \
      FASTDRAW_PIECE(latent, T, S), FASTDRAW_PIECE(input_backward, T, S), FASTDRAW_PIECE(weight_gradient, T, S),       \
      FASTDRAW_PIECE(canvas, T, S), FASTDRAW_PIECE(canvas_backward, T, S), FASTDRAW_PIECE(peak, T, S)

}  // namespace
