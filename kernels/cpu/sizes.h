// The whole numbers that Python hands to each function, by name: the structures of sizes.py, field for field.
#pragma once

#include <stdint.h>

// numbers: of a window's params, 5 or 7. rows, columns: filters along y and along x.
struct FilterbankSizes {
  int64_t batch, height, width, rows, columns, numbers, threads;
};

struct WholeSizes {
  int64_t batch, channels, height, width, rows, columns, power, numbers, threads;
};

// image_kind: 0 for the type of params, 1 for bfloat16, 2 for float16, 3 for uint8. from_*, to_*: strides of the image that is
// read, and of the one that is written. keeps: whether `kept`, of kept_numel numbers a window, is to be filled.
struct WindowsSizes {
  int64_t batch, windows, channels, height, width, rows, columns, power, numbers, image_kind;
  int64_t from_image, from_channel, from_row, from_pixel, to_image, to_channel, to_row, to_pixel, keeps, kept_numel, threads;
};

struct SeenSizes {
  int64_t windows, channels, height, width, rows, columns, numbers;
};

struct LstmSizes {
  int64_t batch, hidden, threads;
};

// function: 0 is exp, 1 the sigmoid, 2 tanh.
struct ElementwiseSizes {
  int64_t function, count;
};

// order: pack.h's. backward: outputs are the weight's columns. split: columns of its first part, whose rows are first_row
// apart.
struct PackSizes {
  int64_t order, outputs, depth, backward, split, first_row, threads;
};

struct PeakSizes {
  int64_t rounds, threads;
};

// row, and every *_row below: numbers from one row of that operand to the next.
struct ProductSizes {
  int64_t batch, outputs, depth, row, threads;
};

struct LinearSizes {
  ProductSizes product;
  int64_t out_row;
};

struct CellSizes {
  ProductSizes product;
  int64_t h_row, h_2_row;
};

struct CellBackwardSizes {
  ProductSizes product;
  int64_t other_row, other_2_row;
};

struct LatentSizes {
  ProductSizes product;
  int64_t z_row;
};

struct InputBackwardSizes {
  ProductSizes product;
  int64_t latents;
};

// split: columns of the weight's first part, whose rows are first_row apart.
struct WeightGradientSizes {
  int64_t rows, outputs, inputs, grad_row, input_row, split, first_row, threads;
};

// head_row: columns of head. writes, rebuild: 0 or 1.
struct CanvasSizes {
  int64_t batch, channels, height, width, read_size, write_size, head_row, r_row, writes, rebuild, threads;
};
