// Rows of a user's image, of any dtype and any strides, from and to rows of numbers that are computed with.
#pragma once

#include "storage.h"
#include "support.h"

namespace {

struct Float16 {
  uint16_t bits;
};

FASTDRAW_INLINE float number(Float16 x) {
  // The exponent is moved by a product, which makes subnormal numbers normal; infinity and NaN are put right after it.
  uint32_t bits = uint32_t(x.bits & 0x7FFFu) << 13;
  float f;
  memcpy(&f, &bits, sizeof f);
  f *= 0x1p112f;
  memcpy(&bits, &f, sizeof f);
  bits = (x.bits & 0x7C00u) == 0x7C00u ? bits | 0x7F800000u : bits;
  bits |= uint32_t(x.bits & 0x8000u) << 16;
  memcpy(&f, &bits, sizeof f);
  return f;
}

// Pixels that vectors load and widen themselves.
template <class T, class S>
constexpr bool kLoads = __is_same(S, T) || (sizeof(T) == 4 && (__is_same(S, BFloat16) || __is_same(S, uint8_t)));

// Every kStep-th number, of channels that lie side by side, in whole vectors; returns how many. kStep vectors are loaded for one
// that is stored, and one number is left over at least, so that nothing behind the last one is touched.
template <int kStep, class T, class S>
int64_t gather_every(const S* from, T* to, int64_t count) {
  constexpr int kAll = kLanes<T>;
  int64_t i = 0;
  for (; i + kAll < count; i += kAll) {
    Vector<T> taken = load_some_as<T>(from + i * kStep, kAll);
    for (int part = 1; part < kStep; ++part) {
      const Vector<T> next = load_some_as<T>(from + i * kStep + part * kAll, kAll);
      // Lane j is number j kStep. Those of parts before stand in their lanes already, but for the first part's own.
      IntVector lanes;
      for (int j = 0; j < kAll; ++j) {
        const int at = j * kStep;
        lanes[j] = at >= part * kAll && at < (part + 1) * kAll ? kAll + at % kAll : (part == 1 && at < kAll ? at : j);
      }
      taken = __builtin_shuffle(taken, next, lanes);
    }
    store(to + i, taken);
  }
  return i;
}

// `count` pixels of a row, `step` numbers from one to the next, into numbers that lie together.
template <class T, class S>
void gather(const S* from, int64_t step, T* to, int64_t count) {
  int64_t i = 0;
  if constexpr (kLoads<T, S>) {
    if (step == 1) return convert<T>(from, to, count);
#if !defined(__clang__)
    if constexpr (sizeof(T) == 4) {
      if (step == 2) i = gather_every<2>(from, to, count);
      if (step == 3) i = gather_every<3>(from, to, count);
      if (step == 4) i = gather_every<4>(from, to, count);
    }
#endif
  }
  for (; i < count; ++i) to[i] = number(from[i * step]);
}

// The reverse; kAdd adds to what stands there.
template <class T, bool kAdd>
void scatter(const T* from, T* to, int64_t step, int64_t count) {
  if (step == 1) {
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const Vector<T> v = load_some_as<T>(from + i, count - i);
      store_some_as<T>(to + i, kAdd ? load_some_as<T>(to + i, count - i) + v : v, count - i);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) to[i * step] = kAdd ? to[i * step] + from[i] : from[i];
  }
}

// A piece of a row: `count` pixels from `pixel` on, which stand at `at` among the packed pixels of a tile.
struct Piece {
  int64_t pixel, at, count;
};

// The pieces that the packed pixels [from, from + columns) are made of; returns how many.
FASTDRAW_INLINE int64_t find_pieces(const Support& s, int64_t from, int64_t columns, Piece* pieces) {
  int64_t count = 0;
  for (int64_t k = 0; k < s.count; ++k) {
    const Segment& g = s.segments[k];
    const int64_t begin = g.packed > from ? g.packed : from;
    const int64_t end = g.packed + g.length < from + columns ? g.packed + g.length : from + columns;
    if (begin < end) pieces[count++] = {begin - g.packed + g.pixel, begin - from, end - begin};
  }
  return count;
}

}  // namespace
