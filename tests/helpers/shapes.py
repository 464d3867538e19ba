"""Odd shapes and windows that everything is proven on, each with what it is there for."""

#: (B, C, H, W, N), each with what it is there for.
GLIMPSES = [
    (1, 1, 1, 1, 1),  # the smallest of everything
    (2, 1, 28, 28, 2),  # the paper's MNIST read
    (2, 1, 28, 28, 5),  # the paper's MNIST write
    (1, 3, 54, 54, 12),  # the paper's SVHN
    (3, 2, 17, 33, 7),  # primes, and one over a power of two; height and width differ
    (2, 3, 5, 64, 1),  # one filter, which has no stride; width a power of two
    (1, 1, 65, 9, 64),  # as many filters as the issue asks for, more than the image is wide
    (1, 5, 31, 1, 3),  # one pixel wide
]

#: Of a small lstm_step's tensors: x, h, c, weight_ih, weight_hh, bias_ih, bias_hh.
LSTM = [(2, 3), (2, 4), (2, 4), (16, 3), (16, 4), (16,), (16,)]

#: Rows of params (g~x, g~y, log sigma^2, log delta~, log gamma), each with what it is there for.
WINDOWS = [
    (0.0, 0.0, 0.0, 0.0, 0.0),  # the whole image
    (0.3, -0.4, -1.0, -0.7, 0.5),  # an ordinary window
    (0.1, 0.1, 30.0, 0.0, 0.0),  # sigma far above the image: uniform filters
    (0.1, 0.1, -30.0, 0.0, 0.0),  # sigma far below a pixel: nearest pixel
    (40.0, -40.0, 0.0, 0.0, 0.0),  # far outside
    (1e6, -1e6, -30.0, 3.0, 0.0),  # further than float32 counts pixels
    (-0.5, 0.5, 0.0, 5.0, 20.0),  # filters mostly outside, a large factor
    (0.0, 0.2, -2.0, -30.0, -20.0),  # all filters in one place, a small factor
    (1e38, -1e38, 1e38, -1e38, -1e38),  # beyond every limit
]
