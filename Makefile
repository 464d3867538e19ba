# make demo   sets everything up, trains on handwritten digits for a minute or two, and draws some
# make test   sets everything up and runs every check that needs no GPU
# make docs  the site, in site/
# make packages  the sdist and the wheel, installed and used
# make emulate  Triton's kernels as machine code for sm_80 and sm_90, executed without a GPU; an hour and a half on two busy cores
# make sanitize  random calls of the C++ kernels under AddressSanitizer; LONG=1 runs more of them, and the kernels' tests
# make gpu    on a machine with a GPU: tests and figures, then the paper's MNIST model trained; uses that machine's python3,
#             installs nothing. COMMIT=... where git cannot be asked, DATA=... the folder with binarized_mnist.npz

PYTHON ?= python3
VENV ?= .venv
# The versions that are tested here; fastdraw itself takes torch >= 2.11 and triton >= 3.6.
TORCH ?= torch==2.13.0
TRITON ?= triton==3.7.1
OUT ?= results
WORKERS ?= 2
# Of the kernels' tests `make test` emulates one in 24, and `make test-triton` compiles every second and interprets one in
# eight, others after every commit. `make emulate` emulates all there are.
TURN ?= $(shell git rev-list --count HEAD 2>/dev/null || echo 0)

BIN := $(VENV)/bin
TRITON_TESTS := $(addprefix tests/kernels/test_triton_,kernels.py large.py pieces.py recurrence.py classifier.py)
# What needs the compiler: the kernels for every device, the fault that they avoid, the emulator's controls.
COMPILED := tests/kernels/test_triton_aot.py tests/kernels/test_triton_fault.py tests/emulator/test_emulator_controls.py
SOURCES := pyproject.toml setup.py CMakeLists.txt $(wildcard kernels/cpu/*.cpp kernels/cpu/*.h)

# Tensors of more elements than 32 bits count have no room for the emulator's notes on each.
EMULATED := triton and not 32_bits

.PHONY: demo test sanitize packages docs lint test-triton emulate benchmark gpu clean

demo: $(VENV)/installed
	$(BIN)/fastdraw train --data digits --out runs/demo --overwrite

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal tests
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(TRITON_TESTS) tests/ops/test_operators.py -k triton
	for device in sm_90 sm_80; do FASTDRAW_EMULATE=$$device FASTDRAW_TURN=$(TURN)/24 $(BIN)/python -m pytest -q -n $(WORKERS) \
	  --dist worksteal $(TRITON_TESTS) tests/ops/test_operators.py -k "$(EMULATED)" || exit 1; done

# The C++ kernels with AddressSanitizer and UndefinedBehaviorSanitizer: random calls at every instruction set.
sanitize: $(VENV)/installed
	$(BIN)/python tests/sanitize.py $(if $(LONG),3000 4000 tests)

# The sdist and the wheel, each installed into an environment with nothing but what it asks for, and used there.
packages: $(VENV)/installed
	$(BIN)/python tests/packages.py

# The site, in site/: whatever mkdocs warns of, a dead link among it, is an error.
docs: $(VENV)/installed
	$(BIN)/pip install -q "mkdocs>=1.6,<2" "mkdocs-material>=9.6" "mkdocstrings[python]>=0.29"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The kernel tests once more, with another triton: make test-triton TRITON=triton==3.6.0
test-triton: $(VENV)/installed
	rm -rf $(VENV)/other-triton
	$(BIN)/pip install -q --no-deps --target $(VENV)/other-triton $(TRITON)
	PYTHONPATH=$(VENV)/other-triton $(BIN)/python -c "import triton; print('triton', triton.__version__)"
	PYTHONPATH=$(VENV)/other-triton FASTDRAW_TURN=$(TURN)/2 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(COMPILED)
	PYTHONPATH=$(VENV)/other-triton TRITON_INTERPRET=1 FASTDRAW_TURN=$(TURN)/8 $(BIN)/python -m pytest -q -n $(WORKERS) \
	  --dist worksteal $(TRITON_TESTS)

# The kernels' tests once more, on what Triton compiles for each device: too long for every change.
# FASTDRAW_EMULATE_ORDERS=together,backward,random has the warps of a program take turns in several orders: eight times as long.
emulate: $(VENV)/installed
	for device in sm_90 sm_80; do FASTDRAW_EMULATE=$$device $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal \
	  $(TRITON_TESTS) tests/ops/test_operators.py -k "$(EMULATED)" && FASTDRAW_EMULATE=$$device $(BIN)/python -m pytest -q \
	  -n $(WORKERS) --dist worksteal tests/gpu/test_gpu_models.py || exit 1; done

benchmark: $(VENV)/installed
	$(BIN)/python -m pytest --benchmark

gpu:
	$(PYTHON) -m benchmarks.gpu figures --out $(OUT)/figures $(if $(COMMIT),--commit $(COMMIT))
	$(PYTHON) -m benchmarks.gpu train --out $(OUT)/mnist $(if $(DATA),--data-dir $(DATA))

$(VENV)/installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade "pip>=24"
	$(BIN)/pip install -q $(TORCH) numpy
	test "$$(uname)" != Linux || $(BIN)/pip install -q --no-deps $(TRITON)
	@# As this project's distribution was called before.
	$(BIN)/pip uninstall -q -q -y fastdraw
	$(BIN)/pip install -q -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info kernels/cpu/*.so
