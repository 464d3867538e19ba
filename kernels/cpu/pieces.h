// The recurrence's pieces for whole batches, as Python calls them; see kernels/aten_pieces.py for what each must do.
//
// All return 0, or 1 where memory ran out. `sizes` are whole numbers, in the order that each function unpacks.
#pragma once

#include "canvas.h"
#include "cells.h"

namespace {

template <class T, class S>
int cell_forward(const int64_t* sizes, const S* product, const S* bias, const T* c, S* gates, T* c_new, S* h, S* h_2) {
  CellForward<T, S> job{sizes[1], sizes[2], sizes[3], product, bias, c, gates, c_new, h, h_2};
  return fastdraw_parallel(sizes[0], sizes[4], cell_forward_rows<T, S>, &job) ? 0 : 1;
}

template <class T, class S>
int cell_backward(const int64_t* sizes, const S* grad_h, const S* other, const S* other_2, const S* gates, const T* c,
                  const T* c_new, T* grad_c, S* grad_gates) {
  CellBackward<T, S> job{sizes[1], sizes[2], sizes[3], grad_h, other, other_2, gates, c, c_new, grad_c, grad_gates};
  return fastdraw_parallel(sizes[0], sizes[4], cell_backward_rows<T, S>, &job) ? 0 : 1;
}

template <class T, class S>
int latent_forward(const int64_t* sizes, const S* product, const S* bias, const T* noise, T* out, S* z, T* kl) {
  LatentForward<T, S> job{sizes[1], sizes[2], product, bias, noise, out, z, kl};
  return fastdraw_parallel(sizes[0], sizes[3], latent_forward_rows<T, S>, &job) ? 0 : 1;
}

template <class T, class S>
int latent_backward(const int64_t* sizes, const S* grad_z, const T* latent, const T* noise, const T* grad_kl, S* grad_latent,
                    T* grad_noise) {
  LatentBackward<T, S> job{sizes[1], sizes[2], grad_z, latent, noise, grad_kl, grad_latent, grad_noise};
  return fastdraw_parallel(sizes[0], sizes[3], latent_backward_rows<T, S>, &job) ? 0 : 1;
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
#define FASTDRAW_PIECES(T, S)                                                                                          \
  FASTDRAW_PIECE(cell_forward, T, S), FASTDRAW_PIECE(cell_backward, T, S), FASTDRAW_PIECE(latent_forward, T, S),        \
      FASTDRAW_PIECE(latent_backward, T, S), FASTDRAW_PIECE(canvas_step, T, S), FASTDRAW_PIECE(canvas_step_backward, T, S)

}  // namespace
