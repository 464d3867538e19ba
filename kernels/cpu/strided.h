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

// `count` pixels of a row, `step` numbers from one to the next, into numbers that lie together.
template <class T, class S>
void gather(const S* from, int64_t step, T* to, int64_t count) {
  if (step == 1) {
    if constexpr (sizeof(S) == sizeof(T) || sizeof(T) == 4) {
      if constexpr (!__is_same(S, Float16)) return convert<T>(from, to, count);
    }
  }
  for (int64_t i = 0; i < count; ++i) to[i] = number(from[i * step]);
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
