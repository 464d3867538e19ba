// Reading through windows: patches, and the moments that the gradient to params is made of.
//
// With L = gamma^power <P, F_Y I F_X^T>, the products of dL/dF with the rows F, F d and F e (filterbank.h) are sums of P over maps:
// of dL/dF_Y and F_Y d, row i of P times row i of (F_Y d) I F_X^T. So a gradient needs five maps as large as the patch, which a read
// that is to be differentiated leaves behind.
//
// Many windows are a task each, whose filters are made just before they are used and never leave the nearest caches. Few windows, and
// those that are written through as well, stand as a wave, and several tasks share one.
#pragma once

#include "window_tiles.h"

namespace {

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

// Of a window and a channel.
template <class T>
void find_moments_of(const WindowJob<T>& job, const Bank<T>& bank, const TileScratch<T>& w, int64_t global, int64_t c, const T* maps, T* moments) {
  const Shape& s = job.shape;
  scale_patch(bank, job.patch + (global * s.channels + c) * s.numel(), s.numel(), w.scaled);
  turn(w.scaled, s.columns, s.rows, padded<T>(s.columns), w.weights, padded<T>(s.rows));
  find_moments(s, w.weights, maps, moments);
}

// A window's gradient, from the moments of all its channels.
template <class T>
void finish_window(const WindowJob<T>& job, int64_t global, const Bank<T>& bank, const T* moments) {
  const Shape& s = job.shape;
  T product = 0;
  for (int64_t k = 0; k < s.rows; ++k) product += moments[k];
  finish_params(bank.y, bank.x, bank.window, s, moments, T(s.power) * product, job.params + global * s.numbers,
                job.params_out + global * s.numbers);
}

// Of images whose rows lie together, and windows that one task reads; others are packed, which looks ahead itself.
template <class S, class T>
Coming coming_of(const WindowJob<T>& job, const Bank<T>& bank, int64_t global, int64_t c) {
  Coming coming;
  if (job.from.pixel != 1 || job.from.row * int64_t(sizeof(S)) >= 4096) return coming;
  if (bank.support_y.count > 1 || bank.support_x.count > 1) return coming;
  const S* channel = static_cast<const S*>(job.image) + global / job.windows * job.from.image + c * job.from.channel;
  coming.at = reinterpret_cast<const char*>(channel + bank.support_y.segments[0].pixel * job.from.row + bank.support_x.segments[0].pixel);
  coming.row = job.from.row * int64_t(sizeof(S)), coming.left = bank.support_y.length;
  coming.lines = bank.support_x.length * int64_t(sizeof(S)) / 64 + 1;
  return coming;
}

// The tiles of the share `cut` of window `global` and channel c, into the patch's map or all five.
template <class T, class S>
void read_tiles(const WindowJob<T>& job, const Bank<T>& bank, const TileScratch<T>& w, int64_t global, int64_t c, int64_t cut,
                T* maps, Coming coming) {
  const Shape& s = job.shape;
  const S* channel = static_cast<const S*>(job.image) + global / job.windows * job.from.image + c * job.from.channel;
  // Tiles as alike as can be: one of a single vector has too few sums to add to at a time. Where tasks share a window its
  // bits depend on where tiles end.
  const int64_t width = bank.support_x.length, tiles = (width + kTile<T> - 1) / kTile<T>;
  const int64_t tile_columns = job.cuts > 1 ? kTile<T> : padded<T>((width + tiles - 1) / tiles), begins = tiles * cut / job.cuts * tile_columns;
  coming.share = 1 + coming.left / (tiles * (job.gradients() ? s.rows : (s.rows + 2) / 3));
  for (int64_t tile = tiles * cut / job.cuts; tile < tiles * (cut + 1) / job.cuts; ++tile) {
    const int64_t from = tile * tile_columns, columns = width - from < tile_columns ? width - from : tile_columns;
    with_vectors<T>(columns, [&](auto vectors) { filter_tile<T, S, vectors>(job, bank, w, channel, from, columns, coming); });
    add_tile(bank, w, s, from, columns, begins, job.gradients(), maps);
  }
}

template <class T>
void store_patch(const Bank<T>& bank, const TileScratch<T>& w, const Shape& s, const T* maps, T* patch) {
  const int64_t n = s.rows, m = s.columns, wide = padded<T>(m);
  turn(maps, padded<T>(n), m, padded<T>(n), w.weights, wide);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t j = 0; j < m; j += kLanes<T>)
      store_some_as<T>(patch + r * m + j, bank.window.gain * load(w.weights + r * wide + j), m - j);
}

// A task is a window, from its params to its patch, or to its gradient.
template <class T, class S>
bool read_each(void* data, int64_t begin, int64_t end) {
  const WindowJob<T>& job = *static_cast<WindowJob<T>*>(data);
  const Shape& s = job.shape;
  const int64_t filters = 3 * s.filters(), numel = s.numel();
  TileScratch<T> w;
  // This window's, and the next one's support, whose pixels are asked for ahead.
  Bank<T> banks[2];
  Memory supports(1), rows(2);
  if (!make_tile_scratch(w, s)) return false;
  if (!lay_out_in<int64_t>(supports, [&](Layout<int64_t>& l) { lay_out_support(l, banks[0], s), lay_out_support(l, banks[1], s); })) return false;
  find_window(job, begin, banks[begin & 1]);
  for (int64_t i = begin; i < end; ++i) {
    Bank<T>&bank = banks[i & 1], &next = banks[~i & 1];
    if (!lay_out_in<T>(rows, [&](Layout<T>& l) { lay_out_bank(l, bank, s, job.derivatives()); })) return false;
    fill_bank(job, i, bank);
    if (i + 1 < end) find_window(job, i + 1, next);
    for (int64_t c = 0; c < s.channels; ++c) {
      T* kept = job.kept ? job.kept + i * kept_numel<T>(s) + means_numel(s) + c * maps_numel<T>(s) : nullptr;
      T* maps = kept ? kept : w.maps;
      if (job.reads()) {
        Coming coming{};
        if (c + 1 < s.channels)
          coming = coming_of<S>(job, bank, i, c + 1);
        else if (i + 1 < end)
          coming = coming_of<S>(job, next, i + 1, 0);
        read_tiles<T, S>(job, bank, w, i, c, 0, maps, coming);
        if (job.patch_out) store_patch(bank, w, s, maps, job.patch_out + (i * s.channels + c) * numel);
      }
      if (!job.params_out) continue;
      T* moments = w.moments + (c > 0 ? filters : 0);
      find_moments_of(job, bank, w, i, c, maps, moments);
      for (int64_t k = 0; c > 0 && k < filters; ++k) w.moments[k] += moments[k];
    }
    if (job.params_out) finish_window(job, i, bank, w.moments);
  }
  return true;
}

template <class T, class S>
bool read_windows(void* data, int64_t begin, int64_t end) {
  const WindowJob<T>& job = *static_cast<WindowJob<T>*>(data);
  const Shape& s = job.shape;
  const int64_t channels = s.channels;
  TileScratch<T> w;
  if (!make_tile_scratch(w, s)) return false;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t i = task / (channels * job.cuts), c = task / job.cuts % channels, cut = task % job.cuts;
    const int64_t global = job.first + i;
    const Bank<T>& bank = job.banks[i];
    T* partial = job.partial + task * job.partial_numel();
    T* kept = job.kept ? job.kept + global * kept_numel<T>(s) + means_numel(s) + c * maps_numel<T>(s) : nullptr;
    if (!job.reads()) {
      find_moments_of(job, bank, w, global, c, kept, partial);
      continue;
    }
    // Where tasks share a window, maps are summed before anything is made of them.
    T* maps = job.cuts == 1 && job.keeps ? kept : (job.maps_part() ? partial + job.patch_part() : w.maps);
    // Filters that see nothing of this task's share.
    if (job.cuts > 1) memset(maps, 0, size_t(job.gradients() ? maps_numel<T>(s) : map_numel<T>(s)) * sizeof(T));
    Coming coming{};
    if (job.cuts == 1 && task + 1 < end) {
      const int64_t next = (task + 1) / channels;
      coming = coming_of<S>(job, job.banks[next], job.first + next, (task + 1) % channels);
    }
    read_tiles<T, S>(job, bank, w, global, c, cut, maps, coming);
    if (job.patch_out) store_patch(bank, w, s, maps, job.cuts > 1 ? partial : job.patch_out + (global * channels + c) * s.numel());
    if (job.params_out && job.cuts == 1) find_moments_of(job, bank, w, global, c, maps, partial);
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
        if (job.params_out) find_moments_of(job, job.banks[i], w, global, c, maps, of + job.patch_part() + job.maps_part());
      }
      const T* own = of + job.patch_part() + job.maps_part();
      for (int64_t k = 0; job.params_out && c > 0 && k < filters; ++k) moments[k] += own[k];
    }
    if (!job.params_out) continue;
    finish_window(job, global, job.banks[i], moments);
  }
  return true;
}

}  // namespace
