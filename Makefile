# `make reproduce` and `make test` do all of the set-up they need; `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help setup reproduce test test-long test-gpu peers site lint tables leaderboard lock clean long-inputs

# .venv/bin is on PATH because DeepSpeed looks there for ninja
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python
export PYTHON

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9.%-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv with the locked packages; a second call installs nothing (3 minutes)
	@sh scripts/setup.sh

reproduce: setup ## the miniature: eight methods on two tiny models; table, figure and page, on a CPU (11 minutes on 2 cores)
	@$(RUN) -m reproduce.miniature.run

qwen2.5-%: setup ## the study of one scale, such as qwen2.5-0.5b; also qwen3-4b, llama-1b, smollm2-135m, octothinker-3b; ARGS=--dry-run prints its plan
	@$(RUN) -m reproduce.qwen $* $(ARGS)

qwen3-%: setup
	@$(RUN) -m reproduce.qwen $@ $(ARGS)

llama-%: setup
	@$(RUN) -m reproduce.llama $* $(ARGS)

smollm2-% octothinker-%: setup
	@$(RUN) -m reproduce.llama $@ $(ARGS)

test: lint ## lint, types and all tests but the long ones (12 minutes on 2 cores)
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not long and not gpu" -n 2 --dist loadfile

test-long: long-inputs setup ## real models, kill tests, fuzzing; LCO_DATA_DIR and LCO_MODEL_DIR name their input (three quarters of an hour on 2 cores)
	@$(RUN) -m pytest -m long --timeout 3600

test-gpu: setup ## what only a CUDA device can show, at most ten minutes on one; figures in runs/gpu/ (parts: pytest -m gpu -k NAME)
	@$(RUN) -m pytest -m gpu -rs --timeout 300

peers: setup ## TRL and verl in .venv-peers, and the tests of the suite's losses inside them (needs half a GB)
	@sh scripts/peers.sh

site: ## docs/ as a site in build/site, by mkdocs-material in .venv-site (a minute)
	@sh scripts/site.sh

lint: setup ## ruff (format and rules), mypy on lco/
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy lco

tables: setup ## tables, figures and the page from the committed records in results/ (half a minute)
	@$(RUN) -m lco.cli table --results results/miniature --out results/miniature/report

leaderboard: setup ## a page of each folder in results/ to sort, filter and open, and an index: results/leaderboard/ (half a minute)
	@$(RUN) -m lco.cli leaderboard --results results

lock: ## write requirements/*.lock anew from the .in files; UPGRADE=1 takes the newest versions that fit
	@bash scripts/lock.sh

clean: ## remove .venv, .venv-peers, .venv-site, caches and build leftovers; runs/ and results/ stay
	@rm -rf .venv .venv-peers .venv-site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

long-inputs:
	@test -d "$$LCO_DATA_DIR" || { echo "make test-long: set LCO_DATA_DIR to a folder of problems in JSON Lines (docs/install.md says which)" >&2; exit 1; }
	@test -d "$$LCO_MODEL_DIR" || { echo "make test-long: set LCO_MODEL_DIR to a folder of models (docs/install.md says which)" >&2; exit 1; }
