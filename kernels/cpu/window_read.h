// Reading through windows: patches, and the moments that the gradient to params is made of; see whole.h for the maths.
//
// A task takes tiles of columns of one window and channel. It packs the tile's rows that the window sees (or takes them where they
// stand), multiplies each filter with the rows of its own band only, and goes on with N rows where the tile had as many as the
// window is high.
#pragma once

#include "bank.h"

namespace {

// Rows of large images lie pages apart, where no hardware looks ahead: so far does packing look.
constexpr int64_t kAhead = 12;

// Packs `rows` rows of pixels that lie side by side, of the `left` that there are; no more than the vectors take.
template <class T, int kVectors, class S>
void copy_rows(const S* from, int64_t row, T* to, int64_t rows, int64_t left, int64_t columns) {
  constexpr int64_t kLast = (kVectors - 1) * kLanes<T>;
  for (int64_t p = 0; p < rows; ++p, from += row, to += kTile<T>) {
    const S* later = from + (p + 2 * kAhead < left ? 2 * kAhead * row : 0);
    for (int64_t a = 0; a < columns; a += 64 / int64_t(sizeof(S))) __builtin_prefetch(later + a, 0, 2);
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
                 int64_t end, bool gradients) {
  const Band* bands = bank.support_y.bands;
  const int64_t stride = bank.y.stride;
  for (int64_t i = 0, count; i < n; i += count) {
    count = 1;
    if (!gradients) {
      // Filters whose bands are nearly one band go together.
      const int64_t most = (bands[i].end - bands[i].begin) * 5 / 4;
      while (count < 3 && i + count < n && bands[i + count].end - bands[i].begin <= most) ++count;
    }
    const int64_t first = bands[i].begin, behind = bands[i + count - 1].end;
    if (behind <= begin || first >= end) continue;
    const bool more = first < begin;
    const int64_t from = more ? begin : first, depth = (behind < end ? behind : end) - from;
    const T* filters = bank.y.rows + i * stride + from;
    // The three rows of one filter, F, F d and F e, share a band.
    const int64_t apart = gradients ? n : 1;
    tile_product<T, kVectors>(gradients ? 3 : count, depth, {filters, apart * stride, 1},
                              tile + (from - begin) * tile_row, tile_row, w.t + i * kTile<T>, apart * kTile<T>, more);
  }
}

// The tile's part of the moments: V with the rows of T, and dL/dF_X with the rows of F_X.
template <class T, int kVectors>
void add_tile_moments(const Bank<T>& bank, const TileScratch<T>& w, const Shape& s, int64_t from, int64_t columns) {
  const int64_t n = s.rows, m = s.columns;
  spread_tile<T, kVectors>(bank, w, s, from, columns);
  const Range j = seen_by(bank.support_x, m, from, from + columns);
  tile_product<T, kVectors>(j.behind - j.first, n, {w.scaled + j.first, 1, m}, w.t, kTile<T>, w.g, kTile<T>, false);
  const auto add = [](T* moments, const T* a, const T* b) {
    Vector<T> total = load(moments);
    for (int v = 0; v < kVectors; ++v) total += load(a + v * kLanes<T>) * load(b + v * kLanes<T>);
    store(moments, total);
  };
  for (int64_t part = 0; part < 3; ++part) {
    for (int64_t i = 0; i < n; ++i)
      add(w.moments + (part * n + i) * kLanes<T>, w.v + i * kTile<T>, w.t + (part * n + i) * kTile<T>);
    for (int64_t i = j.first; i < j.behind; ++i)
      add(w.moments + (3 * n + part * m + i) * kLanes<T>, w.g + (i - j.first) * kTile<T>,
          bank.x.rows + (part * m + i) * bank.x.stride + from);
  }
}

// T of a tile, with the rows of F d and F e too where gradients are wanted.
template <class T, class S, int kVectors>
void filter_tile(const WindowJob<T>& job, const Bank<T>& bank, const TileScratch<T>& w, const S* channel, int64_t from,
               int64_t columns) {
  const int64_t n = job.shape.rows, height = bank.support_y.length;
  const bool gradients = job.gradients();
  const int64_t pieces = find_pieces(bank.support_x, from, columns, w.pieces);
  // Rows a page or more apart would fall into a few lines of the nearest cache.
  const bool direct = __is_same(S, T) && job.from.pixel == 1 && job.from.row * int64_t(sizeof(T)) < 4096 && pieces == 1 &&
                      bank.support_y.count == 1 && columns == kVectors * kLanes<T>;
  const Band& middle = bank.support_y.bands[n / 2];
  const int64_t step = middle.end - middle.begin <= 96 ? kTall : kLow;
  for (int64_t begin = 0; begin < height; begin += step) {
    const int64_t end = begin + step < height ? begin + step : height;
    if (direct) {
      const T* rows = reinterpret_cast<const T*>(channel) + bank.rows[begin] * job.from.row + w.pieces[0].pixel;
      filter_rows<T, kVectors>(bank, w, n, rows, job.from.row, begin, end, gradients);
    } else {
      pack_tile<T, S, kVectors>(job, bank, w, channel, begin, end, pieces, columns);
      filter_rows<T, kVectors>(bank, w, n, w.tile, kTile<T>, begin, end, gradients);
    }
  }
}

template <class T, class S, int kVectors>
void read_tile(const WindowJob<T>& job, const Bank<T>& bank, const TileScratch<T>& w, const S* channel, int64_t from,
               int64_t columns) {
  const int64_t n = job.shape.rows;
  if (!job.kept || job.keeps) filter_tile<T, S, kVectors>(job, bank, w, channel, from, columns);
  if (job.patch_out) {
    const Range j = seen_by(bank.support_x, job.shape.columns, from, from + columns);
    // Whole vectors of filters, which may begin at any filter but must end within a row.
    const int64_t row = bank.transposed_row, last = row - padded<T>(j.behind - j.first), at = j.first < last ? j.first : last;
    matmul<T, Tail::kPadded>(n, j.behind - at, columns, {w.t, kTile<T>, 1}, bank.x_transposed + from * row + at, row,
                             w.patch + at, row, true);
  }
  if (job.params_out) add_tile_moments<T, kVectors>(bank, w, job.shape, from, columns);
}

template <class T, class S>
bool read_windows(void* data, int64_t begin, int64_t end) {
  const WindowJob<T>& job = *static_cast<WindowJob<T>*>(data);
  const Shape& s = job.shape;
  const int64_t n = s.rows, channels = s.channels, numel = s.numel();
  TileScratch<T> w;
  if (!make_tile_scratch(w, s)) return false;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t i = task / (channels * job.cuts), c = task / job.cuts % channels, cut = task % job.cuts;
    const int64_t global = job.first + i, b = global / job.windows;
    const Bank<T>& bank = job.banks[i];
    const S* channel = static_cast<const S*>(job.image) + b * job.from.image + c * job.from.channel;
    memset(w.moments, 0, size_t(3 * s.filters() * kLanes<T>) * sizeof(T));
    memset(w.patch, 0, size_t(n * bank.transposed_row) * sizeof(T));
    if (job.params_out) scale_patch(bank, job.patch + (global * channels + c) * numel, numel, w.scaled);
    const int64_t width = bank.support_x.length, tiles = (width + kTile<T> - 1) / kTile<T>;
    for (int64_t tile = tiles * cut / job.cuts; tile < tiles * (cut + 1) / job.cuts; ++tile) {
      const int64_t from = tile * kTile<T>, columns = width - from < kTile<T> ? width - from : kTile<T>;
      if (job.kept) w.t = job.kept + (global * channels + c) * job.kept_numel + tile * 3 * n * kTile<T>;
      switch ((columns + kLanes<T> - 1) / kLanes<T>) {
        case 1: read_tile<T, S, 1>(job, bank, w, channel, from, columns); break;
        case 2: read_tile<T, S, 2>(job, bank, w, channel, from, columns); break;
        case 3: read_tile<T, S, 3>(job, bank, w, channel, from, columns); break;
        default: read_tile<T, S, 4>(job, bank, w, channel, from, columns); break;
      }
    }
    T* partial = job.partial + task * job.partial_numel();
    if (job.patch_out) {
      T* patch = job.cuts > 1 ? partial : job.patch_out + (global * channels + c) * numel;
      for (int64_t m = 0; m < n; ++m)
        for (int64_t j = 0; j < s.columns; ++j) patch[m * s.columns + j] = bank.window.gain * w.patch[m * bank.transposed_row + j];
      if (job.cuts > 1) partial += numel;
    }
    if (job.params_out)
      for (int64_t m = 0; m < 3 * s.filters(); ++m) partial[m] = sum<T>(load(w.moments + m * kLanes<T>));
  }
  return true;
}

// Sums the tasks' parts of each window, in their order.
template <class T>
bool sum_windows(void* data, int64_t begin, int64_t end) {
  const WindowJob<T>& job = *static_cast<WindowJob<T>*>(data);
  const Shape& s = job.shape;
  const int64_t channels = s.channels, numel = s.numel(), part = job.partial_numel(), filters = 3 * s.filters();
  for (int64_t i = begin; i < end; ++i) {
    const int64_t global = job.first + i;
    T* parts = job.partial + i * channels * job.cuts * part;
    if (job.patch_out && job.cuts > 1) {
      T* patch = job.patch_out + global * channels * numel;
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t m = 0; m < numel; ++m) {
          T total = 0;
          for (int64_t cut = 0; cut < job.cuts; ++cut) total += parts[(c * job.cuts + cut) * part + m];
          patch[c * numel + m] = total;
        }
    }
    if (!job.params_out) continue;
    T* moments = parts + part - filters;
    for (int64_t k = 1; k < channels * job.cuts; ++k)
      for (int64_t m = 0; m < filters; ++m) moments[m] += moments[k * part + m];
    T product = 0;
    for (int64_t m = 0; m < s.rows; ++m) product += moments[m];
    const Bank<T>& bank = job.banks[i];
    finish_params(bank.y, bank.x, bank.window, s, moments, T(s.power) * product, job.params + global * s.numbers,
                  job.params_out + global * s.numbers);
  }
  return true;
}

}  // namespace
