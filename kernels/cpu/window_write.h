// Writing through windows: image = sum over its windows of gamma^power F_Y^T P F_X, zero where no window reaches.
//
// A task takes some rows of an image: all channels where they lie side by side in memory, otherwise one. The first window is
// stored, with zeros around it, and the others are added in their order, so that a pixel's sum is the same however rows are
// shared out.
#pragma once

#include "bank.h"

namespace {

// Packed pixels below the pixel `pixel`.
FASTDRAW_INLINE int64_t packed_below(const Support& s, int64_t pixel) {
  int64_t count = 0;
  for (int64_t k = 0; k < s.count; ++k) {
    const int64_t inside = pixel - s.segments[k].pixel;
    if (inside > 0) count += inside < s.segments[k].length ? inside : s.segments[k].length;
  }
  return count;
}

// Zeros in the rows [top, bottom) at `plane`, but where the window is about to be stored.
template <class T>
void clear_around(const WindowJob<T>& job, const Bank<T>& bank, T* plane, int64_t top, int64_t bottom) {
  const int64_t numbers = job.to.row, pixel = job.to.pixel;
  const auto clear = [](T* from, int64_t count) { memset(from, 0, size_t(count) * sizeof(T)); };
  const Support &y = bank.support_y, &x = bank.support_x;
  int64_t row = top;
  for (int64_t k = 0; k < y.count; ++k) {
    const int64_t begin = y.segments[k].pixel, end = begin + y.segments[k].length;
    if (end <= row || begin >= bottom) continue;
    if (begin > row) clear(plane + row * numbers, (begin - row) * numbers), row = begin;
    for (; row < end && row < bottom; ++row) {
      T* to = plane + row * numbers;
      // Many small gaps are slower than the row.
      if (x.count > 4) {
        clear(to, numbers);
        continue;
      }
      int64_t at = 0;
      for (int64_t i = 0; i < x.count; ++i) {
        clear(to + at, x.segments[i].pixel * pixel - at);
        at = (x.segments[i].pixel + x.segments[i].length) * pixel;
      }
      clear(to + at, numbers - at);
    }
  }
  clear(plane + row * numbers, (bottom - row) * numbers);
}

// Packed rows [begin, end) and `columns` packed columns from `from` on, of one channel.
template <class T, int kVectors, bool kAdd>
void write_tile(const WindowJob<T>& job, const Bank<T>& bank, const TileScratch<T>& w, T* channel, int64_t begin, int64_t end,
                int64_t from, int64_t columns) {
  const int64_t n = job.shape.rows, stride = bank.y.stride;
  const Band* bands = bank.support_y.bands;
  spread_tile<T, kVectors>(bank, w, job.shape, from, columns);
  const int64_t pieces = find_pieces(bank.support_x, from, columns, w.pieces);
  // Where it can be, a product goes straight into the image.
  const bool direct = job.to.pixel == 1 && pieces == 1 && bank.support_y.count == 1 && columns == kVectors * kLanes<T>;
  int64_t first = 0, behind = 0;
  for (int64_t p = begin; p < end; p += 3) {
    const int64_t rows = end - p < 3 ? end - p : 3;
    while (first < n && bands[first].end <= p) ++first;
    while (behind < n && bands[behind].begin < p + rows) ++behind;
    const int64_t depth = behind > first ? behind - first : 0;
    const Operand<T> filters{bank.y.rows + first * stride + p, 1, stride};
    const T* v = w.v + first * kTile<T>;
    if (direct) {
      T* to = channel + bank.rows[p] * job.to.row + w.pieces[0].pixel;
      tile_product<T, kVectors>(rows, depth, filters, v, kTile<T>, to, job.to.row, kAdd);
      continue;
    }
    tile_product<T, kVectors>(rows, depth, filters, v, kTile<T>, w.tile, kTile<T>, false);
    for (int64_t r = 0; r < rows; ++r) {
      T* row = channel + bank.rows[p + r] * job.to.row;
      for (int64_t k = 0; k < pieces; ++k) {
        const Piece& piece = w.pieces[k];
        scatter<T, kAdd>(w.tile + r * kTile<T> + piece.at, row + piece.pixel * job.to.pixel, job.to.pixel, piece.count);
      }
    }
  }
}

template <class T, bool kAdd>
void write_window(const WindowJob<T>& job, const Bank<T>& bank, const TileScratch<T>& w, T* channel, int64_t begin, int64_t end) {
  const int64_t width = bank.support_x.length;
  for (int64_t from = 0; from < width; from += kTile<T>) {
    const int64_t columns = width - from < kTile<T> ? width - from : kTile<T>;
    with_vectors<T>(columns, [&](auto vectors) { write_tile<T, vectors, kAdd>(job, bank, w, channel, begin, end, from, columns); });
  }
}

template <class T>
bool write_windows(void* data, int64_t begin, int64_t end) {
  const WindowJob<T>& job = *static_cast<WindowJob<T>*>(data);
  const Shape& s = job.shape;
  TileScratch<T> w;
  if (!make_tile_scratch(w, s)) return false;
  const int64_t together = job.to.pixel == 1 ? 1 : s.channels, planes = s.channels / together;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / (planes * job.blocks), plane = task / job.blocks % planes, block = task % job.blocks;
    const int64_t top = s.height * block / job.blocks, bottom = s.height * (block + 1) / job.blocks;
    T* base = job.image_out + (job.first / job.windows + image) * job.to.image + plane * job.to.channel;
    clear_around(job, job.banks[image * job.windows], base, top, bottom);
    for (int64_t c = 0; c < together; ++c) {
      for (int64_t k = 0; k < job.windows; ++k) {
        const int64_t i = image * job.windows + k;
        const Bank<T>& bank = job.banks[i];
        const int64_t from = packed_below(bank.support_y, top), to = packed_below(bank.support_y, bottom);
        if (from >= to) continue;
        scale_patch(bank, job.patch + ((job.first + i) * s.channels + plane + c) * job.numel(), job.numel(), w.scaled);
        if (k == 0)
          write_window<T, false>(job, bank, w, base + c * job.to.channel, from, to);
        else
          write_window<T, true>(job, bank, w, base + c * job.to.channel, from, to);
      }
    }
  }
  return true;
}

}  // namespace
