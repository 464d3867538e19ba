// The windows of a call, and every thread's scratch for the tiles that are read and written through them.
#pragma once

#include <stdlib.h>

#include "whole.h"
#include "tile_product.h"
#include "strided.h"

namespace {

// Memory of one call, which what is asked for later takes again. Small ones take the thread's, which the next call takes again: new
// pages take longer than filling them.
struct Memory {
  const int slot;
  void* base = nullptr;
  int64_t room = 0;
  explicit Memory(int of) : slot(of) {}
  ~Memory() { free(base); }
  void* get(int64_t bytes) {
    if (base && bytes <= room) return base;
    if (!base && bytes <= kSmall) return fastdraw_scratch(size_t(bytes) + 64, slot);
    free(base);
    room = posix_memalign(&base, 64, size_t(bytes) + 64) == 0 ? bytes : 0;
    return room ? base : (base = nullptr);
  }
  static constexpr int64_t kSmall = 4 << 20;
};

// `layout(Layout<T>&)` once to count and once to share out.
template <class T, class F>
bool lay_out_in(Memory& memory, F layout) {
  Layout<T> count{nullptr};
  layout(count);
  T* base = static_cast<T*>(memory.get(count.count * int64_t(sizeof(T))));
  if (!base) return false;
  Layout<T> share{base};
  layout(share);
  return true;
}

// Where the numbers of an image [B, C, H, W] stand.
struct Strides {
  int64_t image, channel, row, pixel;
};

// One window: its filters over the packed pixels of either axis.
template <class T>
struct Bank {
  Window<T> window;
  Support support_y, support_x;
  Axis<T> y, x;
  int64_t* rows;  // The image's row of every packed y.
};

// What a read makes of a window and channel, each [N_x, padded N_y]: the patch F_Y I F_X^T, and the same with the rows F d or F e in
// place of F_Y, and in place of F_X.
constexpr int kPatch = 0, kStepY = 1, kExponentY = 2, kStepX = 3, kExponentX = 4, kMaps = 5;

template <class T>
FASTDRAW_INLINE int64_t map_numel(const Shape& s) {
  return s.columns * padded<T>(s.rows);
}

template <class T>
FASTDRAW_INLINE int64_t maps_numel(const Shape& s) {
  return kMaps * map_numel<T>(s);
}

// Whole lines of the cache.
FASTDRAW_INLINE int64_t means_numel(const Shape& s) { return (2 * s.filters() + 15) / 16 * 16; }

// What a read keeps of a window: the means of its filters' d and e, and the maps of every channel.
template <class T>
FASTDRAW_INLINE int64_t kept_numel(const Shape& s) {
  return means_numel(s) + s.channels * maps_numel<T>(s);
}

// What a wave of windows asks for. `patch` and `image` are given, those with _out are made; the rest is null.
//   read: image -> patch_out   write: patch -> image_out   gradients: image and patch -> params_out, and image_out or patch_out
// A read that is to be differentiated keeps its maps, so that its gradient to params needs no pixels.
template <class T>
struct WindowJob {
  Shape shape;
  int64_t windows;  // Of each image.
  int64_t first, count;  // Of all windows, those of this wave: whole images.
  int64_t cuts;          // The columns of a window and channel are shared out among this many tasks of a read,
  int64_t blocks;        // and the rows of an image among this many of a write.
  Strides from, to;
  const T* params;  // [B, K, 5 or 7]
  const void* image;
  const T* patch;  // [B, K, C, N_y, N_x]
  T *image_out, *patch_out, *params_out;
  T* kept;     // [B, K, kept_numel], or null.
  bool keeps;  // Whether `kept` is to be filled, and not found filled.
  Bank<T>* banks;  // [count]
  T* partial;      // [count, C, cuts, partial_numel]

  // Whether maps are wanted, whether pixels are read or maps are found, and whether rows F d and F e make them.
  bool gradients() const { return params_out || keeps; }
  bool reads() const { return !kept || keeps; }
  bool derivatives() const { return gradients() && reads(); }
  int64_t numel() const { return shape.numel(); }
  // Of a task's results those that are summed: its part of a patch, of the maps, and of the moments of both axes.
  int64_t patch_part() const { return cuts > 1 && patch_out ? numel() : 0; }
  int64_t maps_part() const { return cuts > 1 && gradients() ? maps_numel<T>(shape) : 0; }
  int64_t partial_numel() const { return patch_part() + maps_part() + (params_out ? 3 * shape.filters() : 0); }
};

// Rows of a tile that are packed at once: a narrow band slides down a tall tile, a wide one stays in the nearest cache.
constexpr int64_t kTall = 256, kLow = 64;

// A thread's scratch.
template <class T>
struct TileScratch {
  T* tile;     // [kTall, kTile]
  T* t;        // [3 N_y, kTile]: F_Y, F_Y d and F_Y e times the tile
  T* v;        // [N_y, kTile]: gamma^power P F_X
  T* turned;   // [3, kTile, padded N_y]: t, a row a column
  T* scaled;   // [N_y, N_x]: gamma^power P
  T* maps;     // [kMaps, N_x, padded N_y]
  T* weights;  // [padded N_x, padded N_y]: gamma^power P, a row a column of it
  T* moments;  // [2, 3 N_y + 3 N_x]
  Piece* pieces;  // [kTile]
};

template <class T>
bool make_tile_scratch(TileScratch<T>& w, const Shape& s) {
  const int64_t n = s.rows, m = s.columns, high = padded<T>(n);
  for (T* base = nullptr;;) {
    Layout<T> layout{base};
    w.tile = layout.take(kTall * kTile<T>), w.t = layout.take(3 * n * kTile<T>);
    w.v = layout.take(n * kTile<T>), w.turned = layout.take(3 * kTile<T> * high);
    // Room for whole vectors of rows that are turned.
    w.scaled = layout.take(n * m + kLanes<T>), w.maps = layout.take(maps_numel<T>(s));
    w.weights = layout.take(padded<T>(m) * high), w.moments = layout.take(6 * s.filters());
    w.pieces = reinterpret_cast<Piece*>(layout.take(kTile<T> * int64_t(sizeof(Piece) / sizeof(T))));
    if (base) return true;
    base = static_cast<T*>(fastdraw_scratch(size_t(layout.count) * sizeof(T)));
    if (!base) return false;
  }
}

// Shares memory out for a window's supports, whose lengths are not known yet.
template <class T>
void lay_out_support(Layout<int64_t>& layout, Bank<T>& bank, const Shape& shape) {
  const auto take = [&](Support& s, int64_t n) {
    s.bands = reinterpret_cast<Band*>(layout.take(n * int64_t(sizeof(Band) / sizeof(int64_t))));
    s.segments = reinterpret_cast<Segment*>(layout.take(n * int64_t(sizeof(Segment) / sizeof(int64_t))));
  };
  take(bank.support_y, shape.rows);
  take(bank.support_x, shape.columns);
}

template <class T>
void find_window(const WindowJob<T>& job, int64_t global, Bank<T>& bank) {
  const Shape& s = job.shape;
  const Window<T>& o = bank.window = window_of(job.params + global * s.numbers, s);
  // A gradient that is made of what a read kept needs no filters.
  bank.support_y.length = bank.support_x.length = 0;
  if (!job.reads() && !job.image_out) return;
  find_support(bank.support_y, s.rows, s.height, o.y, o.nan());
  find_support(bank.support_x, s.columns, s.width, o.x, o.nan());
}

template <class T>
bool find_windows(void* data, int64_t begin, int64_t end) {
  const WindowJob<T>& job = *static_cast<WindowJob<T>*>(data);
  for (int64_t i = begin; i < end; ++i) find_window(job, job.first + i, job.banks[i]);
  return true;
}

// Shares memory out for one window's filters, after find_window.
template <class T>
void lay_out_bank(Layout<T>& layout, Bank<T>& bank, const Shape& s, bool gradients) {
  const int64_t kinds = gradients ? 3 : 1;
  bank.y.length = s.height, bank.y.stride = band_stride<T>(bank.support_y);
  bank.x.length = s.width, bank.x.stride = band_stride<T>(bank.support_x);
  const auto take = [&](Axis<T>& axis, int64_t n) {
    axis.rows = layout.take(kinds * n * axis.stride);
    axis.mean_step = layout.take(n), axis.mean_exponent = layout.take(n);
  };
  take(bank.y, s.rows);
  take(bank.x, s.columns);
  bank.rows = reinterpret_cast<int64_t*>(layout.take(bank.support_y.length * int64_t(sizeof(int64_t) / sizeof(T))));
}

template <class T>
void fill_bank(const WindowJob<T>& job, int64_t global, Bank<T>& bank) {
  const int64_t rows = job.shape.rows, columns = job.shape.columns;
  const T inverse_y = bank.window.y.half_inverse_sigma2, inverse_x = bank.window.x.half_inverse_sigma2;
  if (job.kept) {
    T* means = job.kept + global * kept_numel<T>(job.shape);
    bank.y.mean_step = means, bank.y.mean_exponent = means + rows;
    bank.x.mean_step = means + 2 * rows, bank.x.mean_exponent = means + 2 * rows + columns;
  }
  if (!job.reads() && !job.image_out) return;
  if (job.derivatives()) {
    fill_bands<T, true>(bank.y, bank.support_y, rows, inverse_y, job.image_out);
    fill_bands<T, true>(bank.x, bank.support_x, columns, inverse_x, job.image_out);
  } else {
    fill_bands<T, false>(bank.y, bank.support_y, rows, inverse_y);
    fill_bands<T, false>(bank.x, bank.support_x, columns, inverse_x);
  }
  for (int64_t k = 0; k < bank.support_y.count; ++k) {
    const Segment& g = bank.support_y.segments[k];
    for (int64_t p = 0; p < g.length; ++p) bank.rows[g.packed + p] = g.pixel + p;
  }
}

template <class T>
bool fill_banks(void* data, int64_t begin, int64_t end) {
  const WindowJob<T>& job = *static_cast<WindowJob<T>*>(data);
  for (int64_t i = begin; i < end; ++i) fill_bank(job, job.first + i, job.banks[i]);
  return true;
}

// The filters [first, behind) that see any of the packed pixels [begin, end).
struct Range {
  int64_t first, behind;
};

FASTDRAW_INLINE Range seen_by(const Support& s, int64_t size, int64_t begin, int64_t end) {
  Range r{0, size};
  while (r.first < size && s.bands[r.first].end <= begin) ++r.first;
  while (r.behind > r.first && s.bands[r.behind - 1].begin >= end) --r.behind;
  return r;
}

// V = gamma^power P F_X for the tile of columns from `from` on.
template <class T, int kVectors>
void spread_tile(const Bank<T>& bank, const TileScratch<T>& w, const Shape& s, int64_t from, int64_t columns) {
  const Range j = seen_by(bank.support_x, s.columns, from, from + columns);
  const T* filters = bank.x.rows + j.first * bank.x.stride + from;
  tile_product<T, kVectors>(s.rows, j.behind - j.first, {w.scaled + j.first, s.columns, 1}, filters, bank.x.stride, w.v, kTile<T>, false);
}

template <class T>
void scale_patch(const Bank<T>& bank, const T* patch, int64_t numel, T* scaled) {
  for (int64_t i = 0; i < numel; ++i) scaled[i] = bank.window.gain * patch[i];
}

}  // namespace
