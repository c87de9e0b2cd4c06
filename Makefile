# Everything is done in a virtual environment of the project, .venv; nothing is installed outside.
# Variables: PYTHON=/path/to/python3.13 (which interpreter .venv is made with),
#            PYTEST_ARGS="..." (of make test and make coverage),
#            QUICKSTART_ARGS="..." (of make demo),
#            MUTANTS=20 (of each module), MUTANTS_ARGS="--seed 1 parameters/text.py" (of make mutants),
#            FUZZ=100000 (inputs), FUZZ_ARGS="--seed 1 models pickles" (of make fuzz),
#            GPU_CHECK_ARGS="-d cuda1 --port ../GRU4Rec_PyTorch_Official" (of make gpu-check),
#            KERNELS_ARGS="--quick" (of make kernels),
#            FIGURES_ARGS="-o pictures --parts limit" (of make figures),
#            BENCHMARKS_ARGS="--data log.tsv --parts training data" (of make benchmarks),
#            DISTROS_ARGS="--core trixie" (of make test-distros).

SHELL := /bin/sh
PY := .venv/bin/python
PYTEST_ARGS ?= -n 2 --dist loadfile
QUICKSTART_ARGS ?=
MUTANTS ?= 20
MUTANTS_ARGS ?=
FUZZ ?= 100000
FUZZ_ARGS ?=
KERNELS_ARGS ?=
DISTROS_ARGS ?=
GPU_CHECK_ARGS ?=
BENCHMARKS_ARGS ?=
FIGURES_ARGS ?=

# by whatever Python there is, which looks for the right one
define BOOTSTRAP
for python in python3 python3.11 python3.13 python3.12 python3.14 python3.10 python3.9 python3.8 "$$PYTHON"; do \
    if "$$python" -c '' >/dev/null 2>&1; then exec "$$python" tools/bootstrap.py $(BOOTSTRAP_ARGS); fi; \
done; \
echo 'error: no Python was found: install Python 3.8 to 3.14, for example with' \
    '`apt-get install -y python3 python3-dev python3-venv`' >&2; \
exit 2
endef

.DEFAULT_GOAL := help
.PHONY: help demo test lint setup mutants fuzz kernels setup-core gpu gpu-sim gpu-check benchmarks docs test-distros lock clean figures coverage

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | \
	    while IFS='|' read -r target text; do printf '  %-12s %s\n' "$$target" "$$text"; done

demo: setup-core ## make a click log, train, evaluate, save, load, evaluate again (1 to 2 minutes with installing)
	@$(PY) examples/quickstart/quickstart.py $(QUICKSTART_ARGS)

test: setup ## run the tests
	@$(PY) -m pytest $(PYTEST_ARGS)

lint: setup ## check the code's style, its imports and its types
	@$(PY) -m ruff check .
	@if $(PY) -c 'import mypy' 2>/dev/null; then $(PY) -m mypy; \
	    else echo 'types are checked on Python 3.10 and later only'; fi
	@if $(PY) -c 'import importlinter' 2>/dev/null; then .venv/bin/lint-imports --no-logo; \
	    else echo 'imports are checked on Python 3.11 and later only'; fi

coverage: setup ## run the tests, and say which lines of the package they do not reach
	@rm -rf build/coverage
	@failed=0; $(PY) -m coverage run -m pytest $(PYTEST_ARGS) || failed=$$?; \
	    $(PY) -m coverage combine --quiet && $(PY) -m coverage html --quiet && \
	    $(PY) -m coverage report --skip-covered && \
	    echo 'line by line: build/coverage/html/index.html' && exit $$failed

mutants: setup ## make small faults at random, and see which of them the tests miss (hours)
	@$(PY) tools/mutants.py -n $(MUTANTS) $(MUTANTS_ARGS)

fuzz: setup ## read 100,000 damaged and made-up files of all kinds (15 minutes)
	@$(PY) tools/fuzz.py -n $(FUZZ) $(FUZZ_ARGS)

kernels: setup ## run the GPU's kernels under oclgrind: data races, memory, barriers (15 minutes)
	@$(PY) tools/kernels.py races $(KERNELS_ARGS)

setup: ## make .venv with everything that is needed (the other targets do it themselves)
	@$(BOOTSTRAP)

setup-core: ## the same with what the toolkit itself runs on alone, which is enough for demo
	@$(BOOTSTRAP)

setup-core: BOOTSTRAP_ARGS := --core

gpu: setup ## get ready what an NVIDIA GPU needs beside its driver, and test it
	@$(PY) tools/gpu.py

gpu-sim: setup ## the same for a simulated GPU (PoCL), on which the GPU's tests run
	@$(PY) tools/gpu.py --simulated

gpu-check: gpu ## what a card computes and how fast, in 8 minutes; writes gpu_check.md
	@$(PY) -m benchmarks.gpu_check $(GPU_CHECK_ARGS)

benchmarks: setup ## measure all that a release needs; writes tables and pictures (50 minutes)
	@$(PY) -m benchmarks.release -o build/benchmarks $(BENCHMARKS_ARGS)

docs: setup ## the documentation as a site, build/docs/index.html; broken links are errors
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build

figures: setup ## draw all pictures of the documentation (3 minutes); writes docs/pictures
	@$(PY) tools/figures.py $(FIGURES_ARGS)

test-distros: setup ## the two commands in fresh roots of Debian 12, 13 and testing (as root, an hour)
	@$(PY) tools/distros.py $(DISTROS_ARGS)

lock: setup ## make requirements.txt anew: the newest versions that requirements.in allows
	@$(PY) -m pip install -q uv==0.13.9
	@$(PY) -m uv pip compile --universal --python-version 3.8 --upgrade --quiet \
	    --custom-compile-command 'make lock' requirements.in -o requirements.txt

clean: ## delete everything that these targets made in the project
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	rm -rf examples/quickstart/data
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
