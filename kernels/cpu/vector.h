// Short vectors of the widest kind that this translation unit's flags allow, and exp, sigmoid and tanh on them.
//
// Everything lies in an unnamed namespace and nothing of the C++ library is used: the same source is compiled once for each
// instruction set into one shared library, and the linker must never merge a function of one set with that of another.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define FASTDRAW_INLINE inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T, int kBytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(kBytes)));
};

template <class T>
using Vector = typename VectorOf<T, kVectorBytes>::type;

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <class T>
FASTDRAW_INLINE constexpr int64_t padded(int64_t n) {
  return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

template <class T>
FASTDRAW_INLINE Vector<T> load(const T* p) {
  Vector<T> v;
  memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
FASTDRAW_INLINE void store(T* p, Vector<T> v) {
  memcpy(p, &v, sizeof v);
}

// Written as a difference because x - 0 is x for every x, -0 among them, so that it costs nothing.
template <class T>
FASTDRAW_INLINE Vector<T> broadcast(T x) {
  return x - Vector<T>{};
}

template <class T>
FASTDRAW_INLINE Vector<T> iota() {
  Vector<T> v;
  for (int i = 0; i < kLanes<T>; ++i) v[i] = T(i);
  return v;
}

// The first `count` values at p, and zeros behind them; memory behind them is not touched.
FASTDRAW_INLINE Vector<float> load_first(const float* p, int64_t count) {
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p);
#elif defined(__AVX2__)
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return (Vector<float>)_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count)), lane));
#else
  Vector<float> v{};
  for (int i = 0; i < count; ++i) v[i] = p[i];
  return v;
#endif
}

FASTDRAW_INLINE Vector<double> load_first(const double* p, int64_t count) {
#if defined(__AVX512F__)
  return (Vector<double>)_mm512_maskz_loadu_pd(__mmask8((1u << count) - 1), p);
#elif defined(__AVX2__)
  const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
  return (Vector<double>)_mm256_maskload_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), lane));
#else
  Vector<double> v{};
  for (int i = 0; i < count; ++i) v[i] = p[i];
  return v;
#endif
}

template <class T>
FASTDRAW_INLINE void store_first(T* p, Vector<T> v, int64_t count) {
  T lanes[kLanes<T>];
  memcpy(lanes, &v, sizeof v);
  for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

// Halves are added to each other until four numbers are left (two of float64), so that the chain is log2 long.
template <class T, int kBytes>
FASTDRAW_INLINE T sum_of(typename VectorOf<T, kBytes>::type v) {
  if constexpr (kBytes > 16) {
    typename VectorOf<T, kBytes / 2>::type low, high;
    memcpy(&low, &v, sizeof low);
    memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    return sum_of<T, kBytes / 2>(low + high);
  } else if constexpr (sizeof(T) == 8) {
    return v[0] + v[1];
  } else {
    return (v[0] + v[2]) + (v[1] + v[3]);
  }
}

template <class T>
FASTDRAW_INLINE T sum(Vector<T> v) {
  return sum_of<T, kVectorBytes>(v);
}

// Loaded once: compilers otherwise load what several multiplications take for each of them.
template <class V>
FASTDRAW_INLINE V in_register(V v) {
#if defined(__x86_64__) && defined(__GNUC__)
  asm("" : "+v"(v));
#endif
  return v;
}

typedef int32_t IntVector __attribute__((vector_size(kVectorBytes)));
typedef uint32_t UintVector __attribute__((vector_size(kVectorBytes)));

// exp(x) for x of at most 89 and at least -1e4, and NaN for NaN: 2^n p with n whole, and p a polynomial for exp(r),
// |r| <= log(2) / 2. NaN stays NaN since comparisons with it are false, and its bits are only added and shifted as unsigned.
FASTDRAW_INLINE Vector<float> vector_exp_in_range(Vector<float> x) {
  typedef Vector<float> V;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits.
#if !defined(__AVX512F__)
  x = x < -104.0f ? broadcast(-104.0f) : x;
#endif
  const V shifted = x * 1.44269504088896341f + kRound;
  const V n = shifted - kRound;
  const V r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * (r * r) + r) + 1.0f;
#if defined(__AVX512F__)
  return (V)_mm512_maskz_scalef_ps(0xFFFF, (__m512)p, (__m512)n);
#else
  // In two halves, so that results below the smallest normal number are rounded and not lost.
  const IntVector k = (IntVector)((UintVector)shifted - 0x4B400000u);
  const IntVector low = k >> 1;
  const V scale_low = (V)(((UintVector)low + 127u) << 23);
  const V scale_high = (V)(((UintVector)k - (UintVector)low + 127u) << 23);
  return p * scale_low * scale_high;
#endif
}

FASTDRAW_INLINE Vector<float> vector_exp(Vector<float> x) {
  x = x > 89.0f ? broadcast(89.0f) : x;
  return vector_exp_in_range(x < -104.0f ? broadcast(-104.0f) : x);
}

FASTDRAW_INLINE Vector<float> vector_tanh(Vector<float> x) {
  typedef Vector<float> V;
  // Near zero an odd polynomial, elsewhere 1 - 2 / (exp(2|x|) + 1), which loses digits near zero and none elsewhere.
  const V z = x * x;
  V p = z * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const V near = p * z * x + x;
  const V size = x < 0.0f ? -x : x;
  const V far = 1.0f - 2.0f / (vector_exp(size + size) + 1.0f);
  return size < 0.625f ? near : (x < 0.0f ? -far : far);
}

// float64 is the yardstick of tests and not a road to speed: the C library's functions, lane by lane.
FASTDRAW_INLINE Vector<double> vector_exp(Vector<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

FASTDRAW_INLINE Vector<double> vector_exp_in_range(Vector<double> x) { return vector_exp(x); }

FASTDRAW_INLINE Vector<double> vector_tanh(Vector<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_tanh(x[i]);
  return x;
}

template <class V>
FASTDRAW_INLINE V vector_sigmoid(V x) {
  return 1.0f / (1.0f + vector_exp(-x));
}

}  // namespace
