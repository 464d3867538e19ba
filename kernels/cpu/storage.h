// Numbers as they lie in memory: float32 and float64 as they are, and bfloat16 and uint8, which are computed with as float32.
#pragma once

#include "vector.h"

namespace {

struct BFloat16 {
  uint16_t bits;
};

template <class T>
FASTDRAW_INLINE Vector<T> load_some_as(const T* p, int64_t count) {
  return count >= kLanes<T> ? load(p) : load_first(p, count);
}

template <class T>
FASTDRAW_INLINE void store_some_as(T* p, Vector<T> v, int64_t count) {
  count >= kLanes<T> ? store(p, v) : store_first(p, v, count);
}

typedef uint16_t ShortVector __attribute__((vector_size(kVectorBytes / 2)));

// The upper half of a float32.
template <class T>
FASTDRAW_INLINE Vector<float> load_some_as(const BFloat16* p, int64_t count) {
  ShortVector bits{};
  // Whole vectors in a number that the compiler knows: otherwise each is a call.
  if (count >= kLanes<float>)
    memcpy(&bits, p, sizeof bits);
  else
    memcpy(&bits, p, size_t(count) * sizeof *p);
  return (Vector<float>)(__builtin_convertvector(bits, UintVector) << 16);
}

typedef uint8_t ByteVector __attribute__((vector_size(kVectorBytes / 4)));

template <class T>
FASTDRAW_INLINE Vector<float> load_some_as(const uint8_t* p, int64_t count) {
  ByteVector bytes{};
  // As above.
  if (count >= kLanes<float>)
    memcpy(&bytes, p, sizeof bytes);
  else
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    bytes = (ByteVector)_mm_maskz_loadu_epi8(__mmask16((1u << count) - 1), p);
#else
    memcpy(&bytes, p, size_t(count));
#endif
  return __builtin_convertvector(__builtin_convertvector(bytes, IntVector), Vector<float>);
}

// Rounded to nearest, ties to even; NaN stays NaN.
template <class T>
FASTDRAW_INLINE void store_some_as(BFloat16* p, Vector<float> v, int64_t count) {
  const UintVector bits = (UintVector)v;
  const UintVector rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const UintVector kept = v == v ? rounded : ((bits >> 16) | 0x40u);
  const ShortVector half = __builtin_convertvector(kept, ShortVector);
  if (count >= kLanes<float>)
    memcpy(p, &half, sizeof half);
  else
    memcpy(p, &half, size_t(count) * sizeof *p);
}

FASTDRAW_INLINE float number(BFloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}
FASTDRAW_INLINE float number(uint8_t x) { return float(x); }
FASTDRAW_INLINE float number(float x) { return x; }
FASTDRAW_INLINE double number(double x) { return x; }

// `count` numbers from one kind of memory to another.
template <class T, class From, class To>
FASTDRAW_INLINE void convert(const From* from, To* to, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes<T>) store_some_as<T>(to + i, load_some_as<T>(from + i, count - i), count - i);
}

}  // namespace
