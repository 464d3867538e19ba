// The recurrence's pieces for whole batches, as Python calls them; see kernels/aten_pieces.py for what each must do.
//
// All return 0, or 1 where memory ran out. `sizes` are whole numbers, in the order that each function unpacks.
#pragma once

#include "canvas.h"
#include "cells.h"
#include "weights.h"

namespace {

// A weight as the products take it. sizes: order, outputs, depth, backward, columns of the first part, threads
template <class T, class S>
int pack(const int64_t* sizes, const S* first, const S* second, void* packed) {
  const int64_t columns = sizes[3] ? sizes[1] : sizes[2];
  PackJob<T, S> job{{Order(sizes[0]), sizes[1]}, sizes[2], sizes[3] != 0, {first, second, columns, sizes[4]},
                    static_cast<char*>(packed)};
  return fastdraw_parallel_each(job.layout.template panels<T>(), sizes[5], pack_panels<T, S>, &job) ? 0 : 1;
}

// sizes of all that follow: B, outputs of the product, depth, numbers from one row of its left operand to the next, threads,
// and then what each names.
// row of out
template <class T, class S>
int linear(const int64_t* sizes, const S* a, const void* weight, const S* bias, T* out) {
  const Biased<T, S> after{sizes[1], sizes[5], bias, out};
  return product<T>({Order::kPlain, sizes[1]}, sizes[0], sizes[2], sizes[3], sizes[4], a, weight, after);
}

// rows of h and of the second h
template <class T, class S>
int cell_forward(const int64_t* sizes, const S* inputs, const void* weight, const S* bias, const T* c, S* gates, T* c_new, S* h,
                 S* h_2) {
  const CellForward<T, S> after{sizes[1] / 4, sizes[5], sizes[6], bias, c, gates, c_new, h, h_2};
  return product<T>({Order::kGates, sizes[1]}, sizes[0], sizes[2], sizes[3], sizes[4], inputs, weight, after);
}

// rows of the others
template <class T, class S>
int cell_backward(const int64_t* sizes, const S* grad_out, const void* weight, const S* other, const S* other_2, const S* gates,
                  const T* c, const T* c_new, T* grad_c, S* grad_gates) {
  const CellBackward<T, S> after{sizes[1], sizes[5], sizes[6], other, other_2, gates, c, c_new, grad_c, grad_gates};
  return product<T>({Order::kPlain, sizes[1]}, sizes[0], sizes[2], sizes[3], sizes[4], grad_out, weight, after);
}

// row of z
template <class T, class S>
int latent_forward(const int64_t* sizes, const S* h, const void* weight, const S* bias, const T* noise, T* out, S* z, T* kl) {
  const LatentForward<T, S> after{sizes[1] / 2, sizes[5], bias, noise, out, z, kl};
  return product<T>({Order::kLatents, sizes[1]}, sizes[0], sizes[2], sizes[3], sizes[4], h, weight, after);
}

// latents
template <class T, class S>
int input_backward(const int64_t* sizes, const S* grad_out, const void* weight, S* grad_inputs, const T* latent, const T* noise,
                   const T* grad_kl, S* grad_latent, T* grad_noise) {
  const InputBackward<T, S> after{sizes[1], sizes[5], grad_inputs, latent, noise, grad_kl, grad_latent, grad_noise};
  return product<T>({Order::kPlain, sizes[1]}, sizes[0], sizes[2], sizes[3], sizes[4], grad_out, weight, after);
}

// sizes: B, C, H, W, read size, write size, columns of head, columns from one r to the next, writes, rebuild, threads
template <class T, class S>
CanvasJob<T, S> canvas_job(const int64_t* sizes, const T* head, T* canvas, const T* x) {
  CanvasJob<T, S> job{};
  job.channels = sizes[1], job.height = sizes[2], job.width = sizes[3], job.read_size = sizes[4], job.write_size = sizes[5];
  job.head_row = sizes[6], job.r_row = sizes[7], job.writes = sizes[8] != 0, job.rebuild = sizes[9] != 0;
  job.head = head, job.canvas = canvas, job.x = x;
  return job;
}

template <class T, class S>
int canvas_step(const int64_t* sizes, const T* head, const T* before, T* canvas, const T* x, S* r) {
  CanvasJob<T, S> job = canvas_job<T, S>(sizes, head, canvas, x);
  job.before = before, job.r = r;
  return fastdraw_parallel(sizes[0], sizes[10], canvas_forward<T, S>, &job) ? 0 : 1;
}

template <class T, class S>
int canvas_step_backward(const int64_t* sizes, const T* head, T* canvas, const T* x, const S* grad_r, T* grad_canvas,
                         S* grad_head, T* grad_x) {
  CanvasJob<T, S> job = canvas_job<T, S>(sizes, head, canvas, x);
  job.grad_r = grad_r, job.grad_canvas = grad_canvas, job.grad_head = grad_head, job.grad_x = grad_x;
  return fastdraw_parallel(sizes[0], sizes[10], canvas_backward<T, S>, &job) ? 0 : 1;
}

#define FASTDRAW_PIECE(f, T, S) reinterpret_cast<const void*>(&f<T, S>)
#define FASTDRAW_PIECES(T, S)                                                                                               \
  FASTDRAW_PIECE(pack, T, S), FASTDRAW_PIECE(linear, T, S), FASTDRAW_PIECE(cell_forward, T, S),                            \
      FASTDRAW_PIECE(cell_backward, T, S), FASTDRAW_PIECE(latent_forward, T, S), FASTDRAW_PIECE(input_backward, T, S),       \
      FASTDRAW_PIECE(weight_gradient, T, S), FASTDRAW_PIECE(canvas_step, T, S), FASTDRAW_PIECE(canvas_step_backward, T, S)

}  // namespace
