// Windows on images of any size, as Python calls them: time and memory follow what the windows see, not the image.
#pragma once

#include <stdlib.h>

#include "sizes.h"
#include "window_read.h"
#include "window_write.h"

namespace {

// Tasks wanted at least. Cuts depend on shapes and never on the number of threads, so that results do not either.
constexpr int64_t kTasks = 16;
// Waking threads takes microseconds, in which one thread does this much.
constexpr int64_t kWaking = 1 << 17;
// Numbers that the filters of one wave of images may take, unless one image alone needs more.
constexpr int64_t kWave = 1 << 23;
constexpr int64_t kWaveWindows = 1024;

// One wave, whose supports are found.
template <class T>
bool run_wave(WindowJob<T>& job, int64_t threads, FastdrawTasks read) {
  const int64_t n = job.shape.rows, channels = job.shape.channels;
  int64_t seen = 0;
  for (int64_t i = 0; i < job.count; ++i) seen += job.banks[i].support_y.length * job.banks[i].support_x.length;
  const int64_t work = job.reads() ? seen * channels * n : job.count * channels * maps_numel<T>(job.shape);
  if (work < kWaking && !job.image_out) threads = 1;
  Memory banks(1), partial(2);
  const auto layout = [&](Layout<T>& l) {
    for (int64_t i = 0; i < job.count; ++i)
      lay_out_bank(l, job.banks[i], job.shape, job.derivatives());
  };
  if (!lay_out_in<T>(banks, layout)) return false;
  if (!fastdraw_parallel(job.count, threads, fill_banks<T>, &job)) return false;
  if (job.image) {
    job.cuts = job.reads() ? (kTasks + job.count * channels - 1) / (job.count * channels) : 1;
    const int64_t tasks = job.count * channels * job.cuts;
    job.partial = static_cast<T*>(partial.get(tasks * job.partial_numel() * int64_t(sizeof(T))));
    if (!job.partial || !fastdraw_parallel(tasks, threads, read, &job)) return false;
    if (!fastdraw_parallel(job.count, threads, sum_windows<T>, &job)) return false;
  }
  if (job.image_out) {
    const int64_t planes = job.count / job.windows * (job.to.pixel == 1 ? channels : 1);
    job.blocks = (kTasks + planes - 1) / planes;
    if (job.blocks > job.shape.height) job.blocks = job.shape.height;
    if (!fastdraw_parallel(planes * job.blocks, threads, write_windows<T>, &job)) return false;
  }
  return true;
}

// What windows see. found: numbers that a read keeps for each window, and pixels of a channel that all windows see together.
template <class T>
int seen_pixels(const SeenSizes& sizes, const T* params, int64_t* found) {
  const Shape shape{sizes.channels, sizes.height, sizes.width, sizes.rows, sizes.columns, 1, sizes.numbers};
  const int64_t n = shape.rows > shape.columns ? shape.rows : shape.columns;
  Memory memory(1);
  Support s;
  s.bands = static_cast<Band*>(memory.get(n * int64_t(sizeof(Band) + sizeof(Segment))));
  if (!s.bands) return 1;
  s.segments = reinterpret_cast<Segment*>(s.bands + n);
  int64_t pixels = 0;
  for (int64_t i = 0; i < sizes.windows; ++i) {
    const Window<T> o = window_of(params + i * shape.numbers, shape);
    find_support(s, shape.columns, shape.width, o.x, o.nan());
    const int64_t across = s.length;
    find_support(s, shape.rows, shape.height, o.y, o.nan());
    pixels += across * s.length;
  }
  found[0] = kept_numel<T>(shape);
  found[1] = pixels;
  return 0;
}

// About so much, if all windows are like the first.
template <class T>
int64_t work_of_each(const WindowJob<T>& job) {
  const Shape& s = job.shape;
  if (!job.reads()) return job.count * s.channels * maps_numel<T>(s);
  Bank<T> bank;
  Memory memory(1);
  if (!lay_out_in<int64_t>(memory, [&](Layout<int64_t>& l) { lay_out_support(l, bank, s); })) return kWaking;
  find_window(job, 0, bank);
  return job.count * s.channels * s.rows * bank.support_y.length * bank.support_x.length;
}

template <class T>
int windows(const WindowsSizes& sizes, const T* params, const void* image, const T* patch, T* image_out, T* patch_out,
            T* params_out, T* kept) {
  WindowJob<T> job{};
  const int64_t batch = sizes.batch, threads = sizes.threads;
  job.windows = sizes.windows;
  job.shape = {sizes.channels, sizes.height, sizes.width, sizes.rows, sizes.columns, int(sizes.power), sizes.numbers};
  job.from = {sizes.from_image, sizes.from_channel, sizes.from_row, sizes.from_pixel};
  job.to = {sizes.to_image, sizes.to_channel, sizes.to_row, sizes.to_pixel};
  job.params = params, job.image = image, job.patch = patch;
  job.image_out = image_out, job.patch_out = patch_out, job.params_out = params_out;
  job.kept = kept, job.keeps = kept && sizes.keeps;
  if (kept && sizes.kept_numel != kept_numel<T>(job.shape)) return 2;
  FastdrawTasks read = read_windows<T, T>, each = read_each<T, T>;
  if constexpr (sizeof(T) == 4) {
    if (sizes.image_kind == 1) read = read_windows<T, BFloat16>, each = read_each<T, BFloat16>;
    if (sizes.image_kind == 2) read = read_windows<T, Float16>, each = read_each<T, Float16>;
    if (sizes.image_kind == 3) read = read_windows<T, uint8_t>, each = read_each<T, uint8_t>;
  }
  if (image && !image_out && batch * job.windows >= kTasks) {
    job.count = batch * job.windows, job.cuts = 1;
    return fastdraw_parallel(job.count, work_of_each(job) < kWaking ? 1 : threads, each, &job) ? 0 : 1;
  }
  for (int64_t b = 0, images; b < batch; b += images) {
    images = kWaveWindows / job.windows;
    images = images < 1 ? 1 : (images < batch - b ? images : batch - b);
    job.first = b * job.windows, job.count = images * job.windows;
    Memory banks(3), supports(4);
    job.banks = static_cast<Bank<T>*>(banks.get(job.count * int64_t(sizeof(Bank<T>))));
    const auto of_all = [&](Layout<int64_t>& l) {
      for (int64_t i = 0; i < job.count; ++i) lay_out_support(l, job.banks[i], job.shape);
    };
    if (!job.banks || !lay_out_in<int64_t>(supports, of_all)) return 1;
    if (!fastdraw_parallel(job.count, job.count < 64 ? 1 : threads, find_windows<T>, &job)) return 1;
    // As many whole images as the wave has room for.
    Layout<T> layout{nullptr};
    for (int64_t i = 0; i < images; ++i) {
      for (int64_t k = 0; k < job.windows; ++k)
        lay_out_bank(layout, job.banks[i * job.windows + k], job.shape, job.derivatives());
      if (i > 0 && layout.count > kWave) images = i;
    }
    job.count = images * job.windows;
    if (!run_wave(job, threads, read)) return 1;
  }
  return 0;
}

}  // namespace
