// Tiles of a window that is read: packed, multiplied with the filters of y, turned, and multiplied with those of x.
//
// A task takes tiles of columns of one window and channel. It packs the tile's rows that the window sees (or takes them where they
// stand), multiplies each filter with the rows of its own band only, and goes on with N rows where the tile had as many as the
// window is high. These are turned, so that the other product too takes each filter's own band only.
#pragma once

#include "bank.h"

namespace {

// Rows of large images lie pages apart, where no hardware looks ahead: so far does packing look.
constexpr int64_t kAhead = 12;

// The pixels that the next task sees, asked for while this one is computed: so many lines at a time.
struct Coming {
  const char* at = nullptr;
  int64_t row = 0, lines = 0, left = 0, share = 0;
  void some() {
    const int64_t count = share < left ? share : left;
    for (int64_t k = 0; k < count; ++k, at += row)
      for (int64_t a = 0; a < lines; ++a) __builtin_prefetch(at + 64 * a, 0, 2);
    left -= count;
  }
};

// Packs `rows` rows of pixels that lie side by side, of the `left` that there are; no more than the vectors take.
template <class T, int kVectors, class S>
void copy_rows(const S* from, int64_t row, T* to, int64_t rows, int64_t left, int64_t columns) {
  constexpr int64_t kLast = (kVectors - 1) * kLanes<T>;
  for (int64_t p = 0; p < rows; ++p, from += row, to += kTile<T>) {
    const S* later = from + (p + 2 * kAhead < left ? 2 * kAhead * row : 0);
    for (int64_t a = 0; a < columns; a += 64 / int64_t(sizeof(S))) __builtin_prefetch(later + a, 0, 2);
    if (sizeof(S) < sizeof(T)) __builtin_prefetch(later + columns - 1, 0, 2);
    for (int v = 0; v < kVectors - 1; ++v) store(to + v * kLanes<T>, load_some_as<T>(from + v * kLanes<T>, kLanes<T>));
    store(to + kLast, load_some_as<T>(from + kLast, columns - kLast));
  }
}

// Packs the rows [begin, end) of the support; columns behind the support's end are zero.
template <class T, class S>
void pack_rows(const WindowJob<T>& job, const Bank<T>& bank, const TileScratch<T>& w, const S* channel, int64_t begin,
               int64_t end, int64_t pieces, int64_t columns, int64_t tile_columns) {
  for (int64_t p = begin; p < end; ++p) {
    const S* row = channel + bank.rows[p] * job.from.row;
    const S* later = channel + bank.rows[p + kAhead < bank.support_y.length ? p + kAhead : p] * job.from.row;
    T* to = w.tile + (p - begin) * kTile<T>;
    for (int64_t k = 0; k < pieces; ++k) {
      const Piece& piece = w.pieces[k];
      const S* line = later + piece.pixel * job.from.pixel;
      for (int64_t a = 0; a < piece.count * job.from.pixel; a += 64 / int64_t(sizeof(S))) __builtin_prefetch(line + a);
      gather(row + piece.pixel * job.from.pixel, job.from.pixel, to + piece.at, piece.count);
    }
    for (int64_t a = columns; a < tile_columns; ++a) to[a] = 0;
  }
}

template <class T, class S, int kVectors>
void pack_tile(const WindowJob<T>& job, const Bank<T>& bank, const TileScratch<T>& w, const S* channel, int64_t begin,
               int64_t end, int64_t pieces, int64_t columns) {
  if constexpr (kLoads<T, S>) {
    if (job.from.pixel == 1 && pieces == 1 && bank.support_y.count == 1) {
      const S* from = channel + bank.rows[begin] * job.from.row + w.pieces[0].pixel;
      return copy_rows<T, kVectors>(from, job.from.row, w.tile, end - begin, bank.support_y.length - begin, columns);
    }
  }
  pack_rows(job, bank, w, channel, begin, end, pieces, columns, kVectors * kLanes<T>);
}

// Adds the rows [begin, end) of the support, which stand at `tile`, to T; a band that begins here starts its rows of T.
template <class T, int kVectors>
void filter_rows(const Bank<T>& bank, const TileScratch<T>& w, int64_t n, const T* tile, int64_t tile_row, int64_t begin,
                 int64_t end, bool gradients, Coming& coming) {
  const Band* bands = bank.support_y.bands;
  const int64_t stride = bank.y.stride;
  for (int64_t i = 0, count; i < n; i += count) {
    count = 1;
    if (!gradients) {
      // Filters whose bands are nearly one band go together.
      const int64_t most = (bands[i].end - bands[i].begin) * 5 / 4;
      while (count < 3 && i + count < n && bands[i + count].end - bands[i].begin <= most) ++count;
    }
    coming.some();
    const int64_t first = bands[i].begin, behind = bands[i + count - 1].end;
    if (behind <= begin || first >= end) continue;
    const bool more = first < begin;
    const int64_t from = more ? begin : first, depth = (behind < end ? behind : end) - from;
    const T* filters = bank.y.rows + i * stride + from;
    // The three rows of one filter, F, F d and F e, share a band.
    const int64_t apart = gradients ? n : 1;
    const Operand<T> rows{filters, apart * stride, 1};
    const T* pixels = tile + (from - begin) * tile_row;
    T* to = w.t + i * kTile<T>;
    if (gradients || count == 3)
      product_rows<T, 3, kVectors>(depth, rows, pixels, tile_row, to, apart * kTile<T>, more);
    else if (count == 2)
      product_rows<T, 2, kVectors>(depth, rows, pixels, tile_row, to, kTile<T>, more);
    else
      product_rows<T, 1, kVectors>(depth, rows, pixels, tile_row, to, kTile<T>, more);
  }
}

// T of a tile, with the rows of F d and F e too where gradients are wanted.
template <class T, class S, int kVectors>
void filter_tile(const WindowJob<T>& job, const Bank<T>& bank, const TileScratch<T>& w, const S* channel, int64_t from,
                 int64_t columns, Coming& coming) {
  const int64_t n = job.shape.rows, height = bank.support_y.length;
  const bool gradients = job.gradients();
  const int64_t pieces = find_pieces(bank.support_x, from, columns, w.pieces);
  // Rows a page or more apart would fall into a few lines of the nearest cache.
  const bool direct = __is_same(S, T) && job.from.pixel == 1 && job.from.row * int64_t(sizeof(T)) < 4096 && pieces == 1 &&
                      bank.support_y.count == 1 && w.pieces[0].pixel + kVectors * kLanes<T> <= job.shape.width;
  const Band& middle = bank.support_y.bands[n / 2];
  const int64_t step = middle.end - middle.begin <= 96 ? kTall : kLow;
  for (int64_t begin = 0; begin < height; begin += step) {
    const int64_t end = begin + step < height ? begin + step : height;
    if (direct) {
      const T* rows = reinterpret_cast<const T*>(channel) + bank.rows[begin] * job.from.row + w.pieces[0].pixel;
      filter_rows<T, kVectors>(bank, w, n, rows, job.from.row, begin, end, gradients, coming);
    } else {
      pack_tile<T, S, kVectors>(job, bank, w, channel, begin, end, pieces, columns);
      filter_rows<T, kVectors>(bank, w, n, w.tile, kTile<T>, begin, end, gradients, coming);
    }
  }
}

// Adds to `kFilters` rows of the patch's map, from filter j on, what the packed pixels [begin, end) of a tile from `from` on give; a band
// that begins at `start` or later starts its row.
template <class T, int kFilters>
FASTDRAW_INLINE void add_patch(const Bank<T>& bank, const T* turned, int64_t high, int64_t from, int64_t j, int64_t begin,
                               int64_t end, int64_t start, T* map) {
  const T* filters = bank.x.rows + j * bank.x.stride;
  Vector<T> sums[kFilters];
  for (int k = 0; k < kFilters; ++k)
    sums[k] = bank.support_x.bands[j + k].begin < start ? load(map + (j + k) * high) : Vector<T>{};
  for (int64_t p = begin; p < end; ++p) {
    const Vector<T> t = load(turned + (p - from) * high);
    for (int k = 0; k < kFilters; ++k) sums[k] += filters[k * bank.x.stride + p] * t;
  }
  for (int k = 0; k < kFilters; ++k) store(map + (j + k) * high, sums[k]);
}

// The same for one row of all maps, which the turned F_Y I, (F_Y d) I and (F_Y e) I stand `part` apart for.
template <class T, int kVectors>
FASTDRAW_INLINE void add_maps(const Bank<T>& bank, const T* turned, int64_t part, int64_t high, int64_t map, int64_t from,
                              int64_t j, int64_t columns, int64_t begin, int64_t end, bool more, T* maps) {
  const int64_t next = columns * bank.x.stride;
  const T* filter = bank.x.rows + j * bank.x.stride;
  Vector<T> sums[kMaps][kVectors];
  for (int k = 0; k < kMaps; ++k)
    for (int v = 0; v < kVectors; ++v) sums[k][v] = more ? load(maps + k * map + j * high + v * kLanes<T>) : Vector<T>{};
  for (int64_t p = begin; p < end; ++p) {
    const T *t = turned + (p - from) * high, f = filter[p], f_step = filter[next + p], f_exponent = filter[2 * next + p];
    for (int v = 0; v < kVectors; ++v) {
      const Vector<T> plain = in_register(load(t + v * kLanes<T>));
      sums[kPatch][v] += f * plain;
      sums[kStepY][v] += f * load(t + part + v * kLanes<T>);
      sums[kExponentY][v] += f * load(t + 2 * part + v * kLanes<T>);
      sums[kStepX][v] += f_step * plain;
      sums[kExponentX][v] += f_exponent * plain;
    }
  }
  for (int k = 0; k < kMaps; ++k)
    for (int v = 0; v < kVectors; ++v) store(maps + k * map + j * high + v * kLanes<T>, sums[k][v]);
}

// A tile's part of the patch's map, or of all five; the task's first tile begins at `begins`.
template <class T>
void add_tile(const Bank<T>& bank, const TileScratch<T>& w, const Shape& s, int64_t from, int64_t columns, int64_t begins,
              bool gradients, T* maps) {
  const int64_t n = s.rows, high = padded<T>(n), part = kTile<T> * high, behind = from + columns, start = from > begins ? from : 0;
  for (int64_t k = 0; k < (gradients ? 3 : 1); ++k) turn(w.t + k * n * kTile<T>, kTile<T>, n, padded<T>(columns), w.turned + k * part, high);
  const Range seen = seen_by(bank.support_x, s.columns, from, behind);
  const Band* bands = bank.support_x.bands;
  const auto first_of = [&](int64_t j) { return bands[j].begin > from ? bands[j].begin : from; };
  const auto end_of = [&](int64_t j) { return bands[j].end < behind ? bands[j].end : behind; };
  for (int64_t j = seen.first, count; j < seen.behind; j += count) {
    count = 1;
    if (gradients) {
      int64_t i = 0;
      for (; i + 2 * kLanes<T> <= high; i += 2 * kLanes<T>)
        add_maps<T, 2>(bank, w.turned + i, part, high, map_numel<T>(s), from, j, s.columns, first_of(j), end_of(j), bands[j].begin < start, maps + i);
      if (i < high)
        add_maps<T, 1>(bank, w.turned + i, part, high, map_numel<T>(s), from, j, s.columns, first_of(j), end_of(j), bands[j].begin < start, maps + i);
      continue;
    }
    // Several filters go together, so that a sum need not wait for the one before it.
    if (j + 4 <= seen.behind) count = 4;
    const int64_t begin = first_of(j), end = end_of(j + count - 1);
    for (int64_t i = 0; i < high; i += kLanes<T>) {
      if (count == 4)
        add_patch<T, 4>(bank, w.turned + i, high, from, j, begin, end, start, maps + i);
      else
        add_patch<T, 1>(bank, w.turned + i, high, from, j, begin, end, start, maps + i);
    }
  }
}

}  // namespace
