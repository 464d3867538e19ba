// Which pixels of an axis the filters of a window can see, and rows of filters over those pixels alone.
//
// Along a row the weights fall as exp(-e), e = d (d + 2 (k - mu)) / 2 sigma^2 with d = a - k and k the pixel nearest to mu. Pixels
// with e above E are left out. With mu inside the image E = z^2 / 2 at z sigma: 6.3 for float32 and 9.1 for float64. What is left
// out of sum F, of sum F d and of sum F e is at most (E + 1) exp(-E) of the whole, also where mu lies far outside and the row falls
// as an exponential. E is the first whole number where that is below half a unit in the last place: 20 and 41.
//
// Where sigma is far below a pixel a row is all but one pixel, and the gradient to mu is nothing but the next one's weight over
// sigma^2: small, but the whole of it. So the nearest 6 pixels on either side stay as long as the dtype holds their weights at all. e is
// at least seven times as large at the seventh as at the first, so where it is above E there, what is left out of sum F d is at most
// 7 exp(-6 E / 7) of it: 3e-7, and 4e-15 in float64.
//
// Pixels that some filter sees stand packed, one after another: pixels between the filters of a wide window are nowhere.
#pragma once

#include "filterbank.h"

namespace {

template <class T>
constexpr double kReach = sizeof(T) == 8 ? 41.0 : 20.0;

template <class T>
constexpr double kHeld = sizeof(T) == 8 ? 708.0 : 87.0;

constexpr double kNear = 6.0;

// How many pixels from the nearest one, away from mu by `shift`, e is at most `reach` / 2 sigma^2: d (d + 2 shift) <= reach.
FASTDRAW_INLINE double side(double shift, double reach) {
  const double root = __builtin_sqrt(shift * shift + reach);
  return shift > 0 ? reach / (root + shift) : root - shift;
}

// To the right of the nearest pixel, which stands `shift` right of mu, and to its left.
struct Sides {
  double right, left;
};

FASTDRAW_INLINE Sides seen_sides(double shift, double reach, double held) {
  const double root = __builtin_sqrt(shift * shift + reach), more = root + __builtin_fabs(shift), less = reach / more;
  Sides seen = shift > 0 ? Sides{less, more} : Sides{more, less};
  if (less < kNear) {
    const double right = side(shift, held), left = side(-shift, held);
    if (seen.right < kNear && right > seen.right) seen.right = right < kNear ? right : kNear;
    if (seen.left < kNear && left > seen.left) seen.left = left < kNear ? left : kNear;
  }
  return seen;
}

// Filters further apart than this are not bridged.
constexpr int64_t kBridge = 16;

// One filter: the packed pixels [begin, end) that it sees. Pixel = packed pixel + shift.
struct Band {
  int64_t begin, end, shift;
  double mu, nearest;
};

// `length` pixels in a row, from `pixel` on in the image and from `packed` on among the packed.
struct Segment {
  int64_t pixel, packed, length;
};

// Bands and segments are in rising order.
struct Support {
  Band* bands;        // [N]
  Segment* segments;  // [N], of which `count`
  int64_t count;
  int64_t length;  // Packed pixels.
};

// With `whole` every filter sees every pixel, so that NaN in a window shows everywhere.
template <class T>
void find_support(Support& s, int64_t size, int64_t axis_length, const Line<T>& line, bool whole) {
  const T centre = line.centre, delta = line.delta, half_inverse_sigma2 = line.half_inverse_sigma2;
  const double reach = kReach<T> / double(half_inverse_sigma2), held = kHeld<T> / double(half_inverse_sigma2);
  const double last = double(axis_length - 1);
  int64_t begin = 0, end = 0;
  s.count = 0;
  for (int64_t i = 0; i < size; ++i) {
    const T mu = centre + (T(i) - T(size - 1) / 2) * delta;
    // In double, where no square overflows, and which has every pixel's number.
    double nearest = double(nearest_whole(mu));
    nearest = nearest < 0 ? 0 : (nearest > last ? last : nearest);
    const double shift = nearest - double(mu);
    const auto [right, left] = seen_sides(shift, reach, held);
    int64_t first = 0, behind = axis_length;
    if (!whole && left < nearest) first = int64_t(nearest) - int64_t(left);
    if (!whole && right < last - nearest) behind = int64_t(nearest) + int64_t(right) + 1;
    // Rising for every filter, whatever the last bit of a square root says.
    begin = first > begin ? first : begin;
    end = behind > end ? behind : end;
    Segment* segment = s.count ? &s.segments[s.count - 1] : nullptr;
    if (!segment || begin > segment->pixel + segment->length + kBridge) {
      s.segments[s.count] = {begin, segment ? segment->packed + segment->length : 0, 0};
      segment = &s.segments[s.count++];
    }
    segment->length = end - segment->pixel;
    s.bands[i] = {begin - segment->pixel + segment->packed, end - segment->pixel + segment->packed,
                  segment->pixel - segment->packed, double(mu), nearest};
  }
  s.length = s.segments[s.count - 1].packed + s.segments[s.count - 1].length;
}

// Room for a row of packed pixels: whole vectors, and one more that the last store of a band may reach into.
template <class T>
FASTDRAW_INLINE int64_t band_stride(const Support& s) {
  return padded<T>(s.length) + kLanes<T>;
}

// One filter's weights over its band; rows of kVectors vectors stay in registers between their two passes, 0 stands for any number.
template <class T, bool kGradients, int kVectors>
FASTDRAW_INLINE void fill_band(const Axis<T>& axis, const Band& band, int64_t i, int64_t next, T half_inverse_sigma2) {
  typedef Vector<T> V;
  const int64_t vectors = kVectors ? kVectors : (band.end - band.begin + kLanes<T> - 1) / kLanes<T>;
  const T shift = T(2 * (band.nearest - band.mu)), length = T(band.end - band.begin);
  // Of float32 only differences of pixels are whole numbers in images of any size.
  const V first = iota<T>() + T(double(band.begin + band.shift) - band.nearest);
  T* row = axis.rows + i * axis.stride + band.begin;
  V total{}, weights[kVectors ? kVectors : 1], exponents[kVectors ? kVectors : 1];
  for (int64_t v = 0; v < vectors; ++v) {
    const V e = exponent_of<T>(first + T(v * kLanes<T>), shift, half_inverse_sigma2);
    V f = vector_exp_in_range(-e);
    f = iota<T>() >= length - T(v * kLanes<T>) ? V{} : f;
    total += f;
    if (kVectors)
      weights[v] = f, exponents[v] = e;
    else
      store(row + v * kLanes<T>, f);
  }
  const T scale = 1 / sum<T>(total);
  V steps_total{}, exponents_total{};
  for (int64_t v = 0; v < vectors; ++v) {
    T* to = row + v * kLanes<T>;
    const V f = (kVectors ? weights[v] : load(to)) * scale;
    store(to, f);
    if (kGradients) {
      const V step = first + T(v * kLanes<T>), f_step = f * step;
      const V f_exponent = f * (kVectors ? exponents[v] : exponent_of<T>(step, shift, half_inverse_sigma2));
      store(to + next, f_step);
      store(to + 2 * next, f_exponent);
      steps_total += f_step;
      exponents_total += f_exponent;
    }
  }
  if (kGradients) {
    axis.mean_step[i] = sum<T>(steps_total);
    axis.mean_exponent[i] = sum<T>(exponents_total);
  }
}

// F over the packed pixels into axis.rows [N, stride], zero outside of a filter's band where `cleared`; with kGradients F d and F e behind
// it.
template <class T, bool kGradients>
void fill_bands(const Axis<T>& axis, const Support& s, int64_t size, T half_inverse_sigma2, bool cleared = true) {
  const int64_t next = size * axis.stride;
  if (cleared) memset(axis.rows, 0, size_t(kGradients ? 3 * next : next) * sizeof(T));
  for (int64_t i = 0; i < size; ++i) {
    const Band& band = s.bands[i];
    switch ((band.end - band.begin + kLanes<T> - 1) / kLanes<T>) {
      case 1: fill_band<T, kGradients, 1>(axis, band, i, next, half_inverse_sigma2); break;
      case 2: fill_band<T, kGradients, 2>(axis, band, i, next, half_inverse_sigma2); break;
      case 3: fill_band<T, kGradients, 3>(axis, band, i, next, half_inverse_sigma2); break;
      default: fill_band<T, kGradients, 0>(axis, band, i, next, half_inverse_sigma2); break;
    }
  }
}

}  // namespace
