"""PTX, executed in numpy: what Triton compiles of this project's kernels runs here without a GPU, and is checked as it runs.

    FASTDRAW_EMULATE=sm_90 pytest tests/kernels/test_triton_pieces.py

docs/design.md, "Machine code, executed", says what is modelled and what is not.
"""
