# make lab · make test · make run · make refresh       (each sets up .venv by itself)
# Without make: python -m helpers lab, python -m helpers test. They are defined in helpers/program/setup.py.
PYTHON ?= python3
PIP_ARGS ?=
PY = .venv/bin/python
# Of each of two workers: more threads than cores make each other wait.
THREADS ?= 1
NOTEBOOKS = $(shell ls -r notebooks/*.ipynb)
.PHONY: help lab test test-faults test-long test-corpus test-fake-cuda mutants run refresh bench ladder readme lint zip colab book clean

help:
	@echo "make lab      open the course in JupyterLab"
	@echo "make test     run every notebook under nbval, and every test"
	@echo "make test-faults     kill training runs, flip bits, fill disks, forge exercises, open a browser"
	@echo "make test-long       every notebook in a simulated Colab and on 7,000 characters, exercises and web pages in a browser"
	@echo "make test-corpus CORPUS=...  run every notebook on another text, without comparing outputs"
	@echo "make test-fake-cuda  without a GPU: is every tensor of a run on CUDA in the right place?"
	@echo "make mutants  put known faults into a copy, one after another: does a test notice each?"
	@echo "make mutants SAMPLE=300      the same with random faults, the share goes to docs/measurements.md"
	@echo "make run      execute all notebooks on the best device here, results to build/"
	@echo "make refresh  execute all notebooks on the CPU and store their outputs"
	@echo "make bench    measure the course beside plain baselines, results to data/runs/"
	@echo "make colab REPO=owner/name   badges and the address for Colab; REPO= takes them away"
	@echo "make book     the course as web pages, results to build/book/"
	@echo "make ladder   measure the ladder of both corpora again (data/runs/ladder-*.json)"

# A stamp that is older than requirements.txt installs again; a newer one installs nothing.
.venv/installed: requirements.txt
	$(PYTHON) -m helpers setup $(PIP_ARGS)

lab: .venv/installed
	$(PYTHON) -m helpers lab $(LAB_ARGS)

# A path in TEST_ARGS is run in place of all: make test TEST_ARGS=tests/test_data.py
test: .venv/installed
	THREADS=$(THREADS) $(PYTHON) -m helpers test $(TEST_ARGS)

test-faults: .venv/installed
	OMP_NUM_THREADS=$(THREADS) COURSE_DEVICE=cpu COURSE_PRESET=course-cpu COURSE_GPT2= COURSE_CORPUS= $(PY) -m pytest -q -n 2 --dist loadscope -m "slow and not faults" tests $(TEST_ARGS)

# Without a network the notebooks are not run with ipywidgets 7, and pytest says so.
IPYWIDGETS_7 = build/ipywidgets-7
test-long: .venv/installed
	-@$(MAKE) --no-print-directory $(IPYWIDGETS_7)/installed
	OMP_NUM_THREADS=$(THREADS) COURSE_DEVICE=cpu COURSE_PRESET=course-cpu COURSE_GPT2= COURSE_CORPUS= $(PY) -m pytest -q -n 2 --dist loadscope -m "faults or slow" \
	  tests/test_colab.py tests/test_browser.py tests/test_classroom.py tests/test_own_text.py \
	  tests/test_anywhere.py tests/test_book.py $(TEST_ARGS)

$(IPYWIDGETS_7)/installed: tests/requirements-ipywidgets-7.txt
	rm -rf $(IPYWIDGETS_7)
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps --target $(IPYWIDGETS_7) -r $<
	touch $@

# On another text the numbers differ, so only errors and failed assertions count.
CORPUS ?= tinyshakespeare
test-corpus: .venv/installed
	OMP_NUM_THREADS=$(THREADS) COURSE_DEVICE=cpu COURSE_PRESET=course-cpu COURSE_GPT2= COURSE_CORPUS="$(CORPUS)" $(PY) -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder \
	  --nbval-lax --nbval-current-env $(NOTEBOOKS) $(TEST_ARGS)

# The CUDA build of torch (5 GB) lives in an environment of its own; === takes it where a CPU build is at hand.
FAKE_CUDA = build/fake-cuda
test-fake-cuda: $(FAKE_CUDA)/installed
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=$(THREADS) $(FAKE_CUDA)/bin/python tests/fake_cuda.py

$(FAKE_CUDA)/installed: requirements.txt
	$(PYTHON) -m venv $(FAKE_CUDA)
	sed -nE 's/^torch==/torch===/p; /^(numpy|safetensors|filelock|tqdm)==/p' requirements.txt > $(FAKE_CUDA)/requirements.txt
	$(FAKE_CUDA)/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check $(PIP_ARGS) -r $(FAKE_CUDA)/requirements.txt
	touch $@

# MUTANTS_ARGS="--only muon" judges some of them; SAMPLE=300 judges random ones instead. cosmic-ray, which
# makes those, brings twenty packages that the course does not need: it lives in an environment of its own.
COSMIC_RAY = build/cosmic-ray/bin/python
mutants: .venv/installed $(if $(SAMPLE),$(COSMIC_RAY))
ifdef SAMPLE
	$(COSMIC_RAY) tests/sampled_mutants.py list $(SAMPLE) $(MUTANTS_ARGS) > build/sample.jsonl
	$(PY) tests/sampled_mutants.py judge build/sample.jsonl
	$(PY) tools/readme.py
else
	$(PY) tests/mutants.py $(MUTANTS_ARGS)
endif

$(COSMIC_RAY): tests/requirements-mutants.txt
	$(PYTHON) -m venv build/cosmic-ray
	$@ -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r tests/requirements-mutants.txt
	touch $@

run: .venv/installed
	$(PY) tools/notebooks.py run $(NB)

refresh: .venv/installed
	$(PY) tools/notebooks.py refresh $(NB)

bench: .venv/installed
	$(PY) -m helpers bench $(BENCH_ARGS)

ladder: .venv/installed
	$(PY) -m helpers ladder

readme: .venv/installed
	$(PY) tools/readme.py

lint: .venv/installed
	$(PY) -m ruff check . && $(PY) -m ruff format --check .

zip:
	git archive --format=zip --output=course.zip HEAD

# An empty REPO undoes it; without one, tools/colab.py explains itself.
colab: .venv/installed
	$(PY) tools/colab.py $(if $(filter undefined,$(origin REPO)),,"$(REPO)")

# Sphinx and what it brings make the pages, and nothing else of the course needs them: an environment of their own.
BOOK = build/book-env
book: $(BOOK)/installed
	$(BOOK)/bin/python tools/book.py

$(BOOK)/installed: tools/requirements-book.txt requirements.txt
	$(PYTHON) -m venv $(BOOK)
	$(BOOK)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c requirements.txt -r tools/requirements-book.txt
	touch $@

clean:
	rm -rf build .pytest_cache .ruff_cache .hypothesis
