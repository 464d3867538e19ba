// Reading through windows: patches, and the moments that the gradient to params is made of.
//
// A task takes tiles of columns of one window and channel. It packs the tile's rows that the window sees (or takes them where they
// stand), multiplies each filter with the rows of its own band only, and goes on with N rows where the tile had as many as the
// window is high. These are turned, so that the other product too takes each filter's own band only.
//
// With L = gamma^power <P, F_Y I F_X^T>, the products of dL/dF with the rows F, F d and F e (filterbank.h) are sums of P over maps:
// of dL/dF_Y and F_Y d, row i of P times row i of (F_Y d) I F_X^T. So a gradient needs five maps as large as the patch, which a read
// that is to be differentiated leaves behind.
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
    tile_product<T, kVectors>(gradients ? 3 : count, depth, {filters, apart * stride, 1},
                              tile + (from - begin) * tile_row, tile_row, w.t + i * kTile<T>, apart * kTile<T>, more);
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
                      bank.support_y.count == 1 && columns == kVectors * kLanes<T>;
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
      const Vector<T> plain = load(t + v * kLanes<T>);
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

// Products of dL/dF with F, F d and F e, of y's filters and then of x's, into moments [3 N_y + 3 N_x]. weights: gamma^power P, turned.
template <class T>
void find_moments(const Shape& s, const T* weights, const T* maps, T* moments) {
  const int64_t n = s.rows, m = s.columns, high = padded<T>(n), map = map_numel<T>(s);
  constexpr int kOfY[] = {kPatch, kStepY, kExponentY}, kOfX[] = {kPatch, kStepX, kExponentX};
  for (int64_t i = 0; i < high; i += kLanes<T>) {
    Vector<T> sums[3] = {};
    for (int64_t j = 0; j < m; ++j)
      for (int k = 0; k < 3; ++k) sums[k] += load(weights + j * high + i) * load(maps + kOfY[k] * map + j * high + i);
    for (int k = 0; k < 3; ++k) store_some_as<T>(moments + k * n + i, sums[k], n - i);
  }
  for (int64_t j = 0; j < m; ++j) {
    Vector<T> sums[3] = {};
    for (int64_t i = 0; i < high; i += kLanes<T>)
      for (int k = 0; k < 3; ++k) sums[k] += load(weights + j * high + i) * load(maps + kOfX[k] * map + j * high + i);
    for (int k = 0; k < 3; ++k) moments[3 * n + k * m + j] = sum<T>(sums[k]);
  }
}

// Of window i of the wave and a channel.
template <class T>
void find_moments_of(const WindowJob<T>& job, const TileScratch<T>& w, int64_t i, int64_t c, const T* maps, T* moments) {
  const Shape& s = job.shape;
  scale_patch(job.banks[i], job.patch + ((job.first + i) * s.channels + c) * s.numel(), s.numel(), w.scaled);
  turn(w.scaled, s.columns, s.rows, padded<T>(s.columns), w.weights, padded<T>(s.rows));
  find_moments(s, w.weights, maps, moments);
}

// Of images whose rows lie together, and windows that one task reads; others are packed, which looks ahead itself.
template <class S, class T>
Coming coming_of(const WindowJob<T>& job, int64_t task) {
  const int64_t channels = job.shape.channels, i = task / channels, c = task % channels;
  const Bank<T>& bank = job.banks[i];
  Coming coming;
  if (job.cuts > 1 || job.from.pixel != 1 || job.from.row * int64_t(sizeof(S)) >= 4096) return coming;
  if (bank.support_y.count > 1 || bank.support_x.count > 1) return coming;
  const S* channel = static_cast<const S*>(job.image) + (job.first + i) / job.windows * job.from.image + c * job.from.channel;
  const char* at = reinterpret_cast<const char*>(channel + bank.rows[0] * job.from.row + bank.support_x.segments[0].pixel);
  coming.at = at, coming.row = job.from.row * int64_t(sizeof(S)), coming.left = bank.support_y.length;
  coming.lines = bank.support_x.length * int64_t(sizeof(S)) / 64 + 1;
  return coming;
}

template <class T, class S>
bool read_windows(void* data, int64_t begin, int64_t end) {
  const WindowJob<T>& job = *static_cast<WindowJob<T>*>(data);
  const Shape& s = job.shape;
  const int64_t n = s.rows, m = s.columns, channels = s.channels, high = padded<T>(n), wide = padded<T>(m);
  TileScratch<T> w;
  if (!make_tile_scratch(w, s)) return false;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t i = task / (channels * job.cuts), c = task / job.cuts % channels, cut = task % job.cuts;
    const int64_t global = job.first + i, b = global / job.windows;
    const Bank<T>& bank = job.banks[i];
    T* partial = job.partial + task * job.partial_numel();
    T* kept = job.kept ? job.kept + global * kept_numel<T>(s) + means_numel(s) + c * maps_numel<T>(s) : nullptr;
    if (!job.reads()) {
      find_moments_of(job, w, i, c, kept, partial);
      continue;
    }
    // Where tasks share a window, maps are summed before anything is made of them.
    T* maps = job.cuts == 1 && job.keeps ? kept : (job.maps_part() ? partial + job.patch_part() : w.maps);
    // Filters that see nothing of this task's share.
    if (job.cuts > 1) memset(maps, 0, size_t(job.gradients() ? maps_numel<T>(s) : map_numel<T>(s)) * sizeof(T));
    const S* channel = static_cast<const S*>(job.image) + b * job.from.image + c * job.from.channel;
    // Tiles as alike as can be: one of a single vector has too few sums to add to at a time. Where tasks share a window its
    // bits depend on where tiles end.
    const int64_t width = bank.support_x.length, tiles = (width + kTile<T> - 1) / kTile<T>;
    const int64_t tile_columns = job.cuts > 1 ? kTile<T> : padded<T>((width + tiles - 1) / tiles), begins = tiles * cut / job.cuts * tile_columns;
    Coming coming = task + 1 < end ? coming_of<S>(job, task + 1) : Coming{};
    coming.share = 1 + coming.left / (tiles * (job.gradients() ? n : (n + 2) / 3));
    for (int64_t tile = tiles * cut / job.cuts; tile < tiles * (cut + 1) / job.cuts; ++tile) {
      const int64_t from = tile * tile_columns, columns = width - from < tile_columns ? width - from : tile_columns;
      switch ((columns + kLanes<T> - 1) / kLanes<T>) {
        case 1: filter_tile<T, S, 1>(job, bank, w, channel, from, columns, coming); break;
        case 2: filter_tile<T, S, 2>(job, bank, w, channel, from, columns, coming); break;
        case 3: filter_tile<T, S, 3>(job, bank, w, channel, from, columns, coming); break;
        default: filter_tile<T, S, 4>(job, bank, w, channel, from, columns, coming); break;
      }
      add_tile(bank, w, s, from, columns, begins, job.gradients(), maps);
    }
    if (job.patch_out) {
      T* patch = job.cuts > 1 ? partial : job.patch_out + (global * channels + c) * s.numel();
      turn(maps, high, m, high, w.weights, wide);
      for (int64_t r = 0; r < n; ++r)
        for (int64_t j = 0; j < m; j += kLanes<T>)
          store_some_as<T>(patch + r * m + j, bank.window.gain * load(w.weights + r * wide + j), m - j);
    }
    if (job.params_out && job.cuts == 1) find_moments_of(job, w, i, c, maps, partial);
  }
  return true;
}

// Sums the tasks' parts of each window, in their order.
template <class T>
bool sum_windows(void* data, int64_t begin, int64_t end) {
  const WindowJob<T>& job = *static_cast<WindowJob<T>*>(data);
  const Shape& s = job.shape;
  const int64_t channels = s.channels, numel = s.numel(), part = job.partial_numel(), filters = 3 * s.filters();
  const auto sum_cuts = [&](const T* parts, int64_t count, T* to) {
    for (int64_t k = 0; k < count; ++k) {
      T total = 0;
      for (int64_t cut = 0; cut < job.cuts; ++cut) total += parts[cut * part + k];
      to[k] = total;
    }
  };
  TileScratch<T> w;
  if (job.cuts > 1 && job.params_out && !make_tile_scratch(w, s)) return false;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t global = job.first + i;
    T* parts = job.partial + i * channels * job.cuts * part;
    T* moments = parts + job.patch_part() + job.maps_part();
    for (int64_t c = 0; c < channels; ++c) {
      T* of = parts + c * job.cuts * part;
      if (job.patch_part()) sum_cuts(of, numel, job.patch_out + (global * channels + c) * numel);
      if (job.maps_part()) {
        T* maps = job.keeps ? job.kept + global * kept_numel<T>(s) + means_numel(s) + c * maps_numel<T>(s) : w.maps;
        sum_cuts(of + job.patch_part(), maps_numel<T>(s), maps);
        if (job.params_out) find_moments_of(job, w, i, c, maps, of + job.patch_part() + job.maps_part());
      }
      const T* own = of + job.patch_part() + job.maps_part();
      for (int64_t k = 0; job.params_out && c > 0 && k < filters; ++k) moments[k] += own[k];
    }
    if (!job.params_out) continue;
    T product = 0;
    for (int64_t k = 0; k < s.rows; ++k) product += moments[k];
    const Bank<T>& bank = job.banks[i];
    finish_params(bank.y, bank.x, bank.window, s, moments, T(s.power) * product, job.params + global * s.numbers,
                  job.params_out + global * s.numbers);
  }
  return true;
}

}  // namespace
