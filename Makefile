# `make reproduce` and `make test` do all of the set-up they need; `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help setup reproduce test test-long lint tables lock clean

PY := .venv/bin/python
export PYTHON ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv with the locked packages (a second call installs nothing)
	@sh scripts/setup.sh

reproduce: setup ## the miniature: every method on two tiny models, table, figure and page, on a CPU in minutes
	@$(PY) reproduce/miniature.py

test: lint ## set-up, lint, types and all tests but the long ones
	@$(PY) -m pytest -m "not long"

test-long: setup ## real models, kill tests, fuzzing (needs LCO_DATA_DIR and LCO_MODEL_DIR)
	@$(PY) scripts/long_tests.py

lint: setup ## ruff (format and rules) and mypy on lco/
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy lco

tables: setup ## build tables, figures and the page from the committed records in results/
	@$(PY) -m lco.cli table results

lock: ## write requirements/*.lock anew from requirements/*.in (UPGRADE=1: newest versions that fit)
	@bash scripts/lock.sh

clean: ## remove .venv, caches and build leftovers (runs/ and results/ stay)
	@rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
