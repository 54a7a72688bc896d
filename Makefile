# make demo: set up, build the demo catalogue, search the bundled hums, run notebook 00.
# make test: set up and pass the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
ENV := $(patsubst %/bin,%,$(BIN))
# Python compiles each module when it is first used. Letting pip compile everything takes two minutes.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
export QBHKIT_CACHE ?= $(CURDIR)/data/cache
# Real recordings are used if they are beside the checkout.
export QBHKIT_DATA ?= $(if $(wildcard ../shared/data),$(abspath ../shared/data),$(QBHKIT_CACHE)/corpora)
PROFILE ?= tiny
RUNS := $(QBHKIT_CACHE)/notebooks
DEMO := $(QBHKIT_CACHE)/$(if $(FULL),full,demo)-catalogue
# 858 public-domain tunes that no weights were trained on; FULL=1 takes all 12,900 that come with music21.
TUNES := oneills1850 ryansMammoth airdsAirs $(if $(FULL),miscFolk essenFolksong,--held-out)
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.py))

.PHONY: demo test notebooks compare evaluate train reproduce lint pair docs results clean

demo: $(ENV)/demo.stamp
	$(BIN)/qbhkit catalogue build $(TUNES) --out $(DEMO)
	$(BIN)/qbhkit search qbhkit/assets/hums/*.flac --catalogue $(DEMO) -k 3
	$(BIN)/python tests/tools/run_notebooks.py --profile $(if $(FULL),full,$(PROFILE)) --out $(RUNS) --if-changed notebooks/00_hum_to_song.py
	@echo
	@echo "Above: each hum and the songs it found. See and hear it: $(RUNS)/00_hum_to_song.html"
	@echo "Your own hum: $(BIN)/qbhkit search YOUR.wav --catalogue $(DEMO)"

# The notebooks' catalogue is built first, with all cores; each test process then uses one.
test: $(ENV)/test.stamp
	$(BIN)/qbhkit catalogue build $(TUNES) --out $(DEMO)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

notebooks: $(ENV)/test.stamp
	$(BIN)/python tests/tools/run_notebooks.py --profile $(PROFILE) --out $(RUNS) $(NOTEBOOKS)

# The README, the API reference and the notebooks as static pages; nothing is hosted.
docs: $(ENV)/test.stamp
	$(BIN)/python tests/tools/make_docs.py $(QBHKIT_CACHE)/docs

# data/results/README.md from the JSON files beside it. Commit it.
results: $(ENV)/test.stamp
	$(BIN)/python tests/tools/make_results.py

# The evaluation notebook on three catalogues, and one table of the results.
compare: $(ENV)/test.stamp
	$(BIN)/python notebooks/compare_catalogues.py --profile $(PROFILE) --out $(RUNS)/catalogues

# Runs every notebook and rewrites the .ipynb beside its .py source, with outputs. Commit both.
pair: $(ENV)/test.stamp
	env -u QBHKIT_DATA $(BIN)/python tests/tools/run_notebooks.py --profile tiny --commit $(NOTEBOOKS)

# All 423 real hums against 2,048 songs, six methods, matched from the start and anywhere (needs the recordings).
evaluate: $(ENV)/test.stamp
	$(BIN)/qbhkit bench hums

train: $(ENV)/test.stamp
	$(BIN)/qbhkit train stage1 $(if $(wildcard $(QBHKIT_CACHE)/runs/stage1/checkpoint.pt),--resume)

# Trains the shipped embedding from nothing, measures it and compares every number with data/results; resumes
# if it was stopped. It needs the recordings; REDUCED=1 takes two minutes and uses only what ships with the kit.
reproduce: $(ENV)/test.stamp
	$(BIN)/qbhkit bench reproduce --profile $(if $(REDUCED),tiny,full)

lint: $(ENV)/test.stamp
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf .venv data/cache

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("qbhkit needs Python 3.11 to 3.13" if not (3, 11) <= sys.version_info[:2] < (3, 14) else 0)'
	$(PYTHON) -m venv .venv

$(ENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[notebooks]'
	@touch $@

$(ENV)/test.stamp: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[notebooks,phone,service,trackers,training,melodia,dask,faiss,postgres,test]'
	$(PIP) --no-deps tinysoundfont==0.3.7
	@touch $@
