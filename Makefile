# Each target sets up .venv first, when it is not there or requirements.lock or pyproject.toml changed.
#   ARGS    more arguments for the command behind a target:  make test ARGS='-k kernel'
#   PYTHON  the interpreter to set up with:                   make setup PYTHON=python3.12
#   UV      uv to set up with; `make setup UV=` uses pip

BIN := .venv/bin
READY := .venv/.ready
JOBS ?= 2
# pytest's status where ARGS choose no test
NONE := 5
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup parts test test-long check format report readme cost measure calibrate validate sweep lock clean distclean
.DELETE_ON_ERROR:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(READY)  ## .venv with the locked versions and this checkout

$(READY): requirements.lock pyproject.toml
	@rm -f $@
	@sh tools/setup.sh
	@touch $@

parts: $(READY)  ## the real parts that no package brings: Kafka's jars, by Maven
	$(BIN)/python -m simlib.brokers.kafka

test: $(READY)  ## the tests, without those that take minutes; by themselves those that want the machine alone
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup -m 'not long and not alone' $(ARGS) tests || [ $$? -eq $(NONE) ]
	$(BIN)/python -m pytest -q -m 'alone and not long' $(ARGS) tests || [ $$? -eq $(NONE) ]

test-long: $(READY)  ## the tests that take minutes
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup -m 'long and not alone' --timeout 1800 $(ARGS) tests || [ $$? -eq $(NONE) ]
	$(BIN)/python -m pytest -q -m 'long and alone' --timeout 1800 $(ARGS) tests || [ $$? -eq $(NONE) ]

check: $(READY)  ## lint, format, types; lock and environment.yml agree
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/environment.py --check

format: $(READY)  ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

report: $(READY)  ## the coursework report: DOCX, PDF, HTML
	$(BIN)/simlib report $(ARGS)

readme: report  ## the READMEs' figures and tables, from the report's results
	$(BIN)/python tools/readme.py

cost: $(READY)  ## the cost of development: docs/cost.md, data/cost.json
	$(BIN)/python tools/cost.py $(ARGS)

measure calibrate validate: $(READY)
	$(BIN)/simlib $@ $(ARGS)

measure:  ## measure the live architectures on this machine
calibrate:  ## fit the parameters to the measurements
validate:  ## predictions against held-out measurements

sweep: $(READY)  ## run a plan:  make sweep PLAN=plan.yaml
	$(if $(PLAN),,$(error name the plan: make sweep PLAN=plan.yaml))
	$(BIN)/simlib sweep $(PLAN) $(ARGS)

lock:  ## resolve pyproject.toml into requirements.lock and environment.yml (UPGRADE=1: newest versions)
	UPGRADE=$(UPGRADE) sh tools/lock.sh
	$(MAKE) environment.yml

environment.yml: requirements.lock tools/environment.py
	python3 tools/environment.py

clean:  ## remove caches and built documents
	rm -rf report/build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find simlib tests tools notebooks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
	find notebooks -name .ipynb_checkpoints -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## also remove .venv, the results and the figures, which take long to make again
	rm -rf .venv data/results *.egg-info
	find figures -type f ! -name 'readme_*.png' -delete 2>/dev/null || true
