VENV ?= .venv
PY := $(VENV)/bin/python
RECBOLE := data/recbole-1.2.1-py3-none-any.whl

.PHONY: help demo test lint docs test-browser test-package test-torch-sparse bench bench-quality figures clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/.installed: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PY) -m pip install -q -c constraints.txt torch
	$(PY) -m pip install -q -c constraints.txt -e '.[dev,docs]'
	touch $@

$(RECBOLE): | $(VENV)/.installed
	$(PY) -m pip download -q --no-deps -d data recbole==1.2.1

demo: $(VENV)/.installed $(RECBOLE)  ## Train on MovieLens-100K and print recommendations
	$(PY) examples/demo.py --root data/ml-100k --wheel $(RECBOLE)

test: $(VENV)/.installed  ## Run the tests
	$(PY) -m pytest -q -m 'not torch_sparse and not package and not browser'

lint: $(VENV)/.installed  ## Check style, types and layers
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(VENV)/.installed  ## Build the site into docs/_build/html; a warning is an error
	$(PY) -m sphinx -E -n -W --keep-going -q -b html docs docs/_build/html

test-package: $(VENV)/.installed  ## Build wheel and sdist, install them in a clean environment and use them
	$(PY) -m pytest -q -m package

$(VENV)/.browser: | $(VENV)/.installed
	$(PY) -m pip install -q -c constraints.txt playwright
	@command -v chromium >/dev/null || [ -n "$$CHROMIUM" ] || \
	    { [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core; } || \
	    { echo "Chromium is needed: apt-get install chromium, or set CHROMIUM to the path of one" >&2; exit 1; }
	touch $@

test-browser: $(VENV)/.installed $(VENV)/.browser  ## Open the page of recommendations in Chromium and use it
	$(PY) -m pytest -q -m browser tests/browser

$(VENV)/.torch-sparse: | $(VENV)/.installed
	$(PY) -m pip install -q -c constraints.txt setuptools wheel
	$(PY) -m pip install -q --no-build-isolation -c constraints.txt torch-scatter torch-sparse
	touch $@

test-torch-sparse: $(VENV)/.installed $(VENV)/.torch-sparse  ## Build the extra torch-sparse (about 10 minutes) and test it
	$(PY) -m pytest -q -m torch_sparse

bench: $(VENV)/.installed  ## Time an epoch at Baby's size
	$(PY) -m benchmarks.speed.train_epoch

DATA ?= data
Q := $(PY) -m benchmarks.quality
R := $(PY) -m benchmarks.report
ROWS := benchmarks/results/quality
bench-quality: $(VENV)/.installed  ## Rerun every quality experiment without rows, then the tables and figures (many hours)
	$(Q).tune --root $(DATA) --dataset scientific movielens --model LIRDRec LightGCN BPRMF VBPR FREEDOM BM3 MGCN
	$(Q).tune --root $(DATA) --dataset scientific movielens --metric ndcg@20 --model LIRDRec SoftmaxLIRDRec
	$(Q).tune --root $(DATA) --dataset scientific movielens --metric ndcg@20 --hide --model LIRDRec SoftmaxLIRDRec
	$(Q).run --root $(DATA) --experiment main --dataset scientific movielens scientific_text microlens_50k
	$(Q).run --root $(DATA) --experiment ablation --dataset scientific movielens microlens_50k
	$(Q).run --root $(DATA) --experiment 'item IDs' --dataset scientific movielens scientific_text microlens_50k
	$(Q).run --root $(DATA) --experiment transfer --dataset scientific movielens
	$(Q).run --root $(DATA) --experiment 'preset, candidates' --dataset scientific_text microlens_50k
	$(Q).run --root $(DATA) --experiment preset 'preset, hidden' 'preset, untuned' --dataset scientific movielens scientific_text microlens_50k
	$(Q).run --root $(DATA) --experiment precision --dataset scientific
	$(Q).run --root $(DATA) --experiment text --dataset scientific_text
	$(Q).studies.missing --root $(DATA)
	$(Q).studies.onboard --root $(DATA)
	$(Q).studies.onboard --items 100000
	$(Q).studies.new_items --root $(DATA) --dataset scientific --model SoftmaxLIRDRec
	$(Q).studies.new_items --root $(DATA) --dataset movielens --model SoftmaxLIRDRec
	$(Q).studies.new_items --root $(DATA) --dataset scientific --model LIRDRec
	$(Q).studies.new_items --root $(DATA) --dataset movielens --model LIRDRec
	$(Q).studies.fold_in --root $(DATA)
	$(Q).studies.pwc_weights --root $(DATA) --dataset scientific movielens --epochs 40
	$(Q).studies.gradient_bias --root $(DATA)
	$(Q).studies.startup --root $(DATA)
	$(Q).studies.when_ids_pay --root $(DATA) --dataset scientific movielens
	$(Q).studies.dct_in_loop --root $(DATA) --dataset scientific baby-sized --epochs 1
	$(Q).studies.feature_cost --root $(DATA)
	$(Q).run --root $(DATA) --experiment PWC --dataset scientific movielens
	$(Q).run --root $(DATA) --experiment sequences --dataset scientific
	$(Q).run --root $(DATA) --experiment 'equal footing, candidates' --dataset scientific movielens
	$(Q).run --root $(DATA) --experiment 'equal footing' --dataset scientific movielens
	$(PY) examples/lirdrec_amazon.py --root $(DATA)/amazon_scientific_2018 --name scientific --seeds 0 1 2 \
	    --rows $(ROWS)/scientific.csv
	$(PY) examples/cold_start.py --root $(DATA) --dataset scientific movielens --rows $(ROWS)/cold.csv
	$(R).significance
	$(MAKE) figures

figures: $(VENV)/.installed  ## Draw the figures and write the tables of the README from the rows
	$(R).figures
	$(R).tables

clean:  ## Remove the environment and all caches; data and checkpoints stay
	rm -rf $(VENV) dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
