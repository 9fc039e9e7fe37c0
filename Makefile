# Everything a contributor does, from a fresh clone. `make` prints this list.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
UV := $(shell command -v uv || echo $(BIN)/uv)
DEVCLUSTER := hack/devcluster/devcluster
# CLUSTER=current uses the cluster of $$KUBECONFIG instead of the dev cluster.
CLUSTER ?= dev
export CLUSTER
# Of `make nightly`.
HISTORIES ?= 10000
# Tests share the cores; one thread per process is quicker than two that fight.
export OMP_NUM_THREADS ?= 1
# Without bytecode every process compiles torch and its kin again, which takes longer than importing them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} /^## / {printf "\n%s\n", substr($$0, 4)} /^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## Develop

.PHONY: setup
setup: $(VENV)/.installed ## Make the virtual environment with everything pinned

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@[ -x "$(UV)" ] || $(BIN)/pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

.PHONY: format
format: setup ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: lint
lint: setup ## Check style, types, dependencies and the boundaries between the parts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry api operator trainer_image cli

.PHONY: generate
generate: setup ## Write the generated files (the CRD, what a run says) anew
	$(BIN)/python hack/print_crd.py > crds/dporuns.dporun.io.yaml
	PYTHONPATH=tests $(BIN)/python -m dporun_testing.story_book > docs/messages.md

.PHONY: health-table
health-table: setup ## Judge the diagnosis by the labelled runs, and write the tables into docs/health.md
	PYTHONPATH=tests $(BIN)/python -m dporun_testing.labelled.confusion --write

.PHONY: models
models: setup ## Try every model type of transformers and write the table of docs/models.md (two minutes)
	PYTHONPATH=tests $(BIN)/python -m dporun_testing.model_table

.PHONY: gpu-sizes
gpu-sizes: setup ## Write the tables of docs/gpus.md: which sizes fit on which GPUs
	PYTHONPATH=tests $(BIN)/python -W ignore -m dporun_testing.gpu_sizes

.PHONY: verify
verify: setup ## Fail when a generated file is not what its source says, or the example is unchecked
	@$(BIN)/python hack/print_crd.py | diff -u crds/dporuns.dporun.io.yaml - \
	  || { echo "crds/ is out of date: run 'make generate' and commit the result" >&2; exit 1; }
	@$(BIN)/python examples/tiny/check.py --noted

.PHONY: lock
lock: setup ## Pin the newest allowed version of every dependency
	hack/lock

## Test

.PHONY: test
test: setup ## Check the code and run every test that needs no cluster
	@$(MAKE) --no-print-directory --jobs 2 lint s3-server verify
	$(BIN)/pytest -n 2 --dist worksteal -m "not cluster and not gpu"

.PHONY: test-gpu
test-gpu: setup ## Run the tests that need a GPU, on a machine that has one
	@PYTHONPATH=tests:bench $(BIN)/python -m gpu.common
	$(BIN)/pytest -m gpu tests/gpu

ROWS ?= 100000

.PHONY: bench-prepare
bench-prepare: setup ## Measure prepare on ROWS rows of about 600 tokens: build/bench/prepare.json
	PYTHONPATH=tests $(BIN)/python bench/prepare.py --rows $(ROWS)

STEPS ?= start failures memory speed evaluation
OUT ?= build/gpu

.PHONY: bench-gpu
bench-gpu: setup ## Prove on a GPU what a CPU cannot: STEPS of bench/gpu, ten minutes each at most, as JSON in OUT
	@PYTHONPATH=tests:bench $(BIN)/python -m gpu.common
	failed=; for step in $(STEPS); do PYTHONPATH=tests:bench timeout 600 $(BIN)/python -m gpu.$$step --out $(OUT) \
	  || failed="$$failed $$step"; done; [ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

.PHONY: nightly
nightly: setup ## Play HISTORIES random histories of a run, and kill the operator at every call of many lives (20 minutes)
	DPORUN_HISTORIES=$(HISTORIES) $(BIN)/pytest -n 2 --dist worksteal tests/simulation
	DPORUN_EVERY_MODEL_TYPE=1 $(BIN)/pytest -n 2 --dist worksteal tests/trainer/test_model_table.py

.PHONY: s3-server
s3-server: setup # The server that tests store to: built once, which takes minutes, and kept in ~/.cache/dporun
	@PYTHONPATH=tests $(BIN)/python -m dporun_testing.s3_server

.PHONY: test-cluster
test-cluster: images stand-in ## Run the tests that need a cluster, with the real images
	eval "$$($(DEVCLUSTER) env)"; $(BIN)/pytest -m cluster

MINUTES ?= 10
RUNS ?= 20

.PHONY: chaos
chaos: images stand-in ## Kill operator, pods, S3 and API server for MINUTES while RUNS runs go on; nothing may be lost
	eval "$$($(DEVCLUSTER) env)"; hack/install --hide-notes --set "trainerImage.allowed={$$STAND_IN_IMAGE}"; \
	PYTHONPATH=tests $(BIN)/python -m dporun_testing.chaos --minutes $(MINUTES) --runs $(RUNS) $(if $(SEED),--seed $(SEED))

.PHONY: stand-in
stand-in: images # A trainer that only pretends to train, for tests of what happens around it
	hack/images/build stand-in

.PHONY: record
record: setup ## Record runs of this release in every phase, for the upgrade tests of later ones
	eval "$$($(DEVCLUSTER) env)"; PYTHONPATH=tests $(BIN)/python -m dporun_testing.recording

## Run

.PHONY: demo-local
demo-local: setup ## Run examples/tiny on this computer, without a cluster, in about two minutes
	hack/demo-local

.PHONY: demo
demo: cluster-up images ## Run examples/tiny on a real cluster, from nothing to an archived run
	eval "$$($(DEVCLUSTER) env)"; $(BIN)/python hack/demo.py

.PHONY: demo-down
demo-down: ## Remove what the demo made, the dev cluster included
	hack/demo-down

## Dev cluster

.PHONY: cluster-up
cluster-up: setup ## Start a real Kubernetes node and an S3 server on this machine
	$(DEVCLUSTER) up

.PHONY: cluster-down
cluster-down: ## Stop it
	$(DEVCLUSTER) down

.PHONY: cluster-status
cluster-status: ## Say what of it runs
	$(DEVCLUSTER) status

.PHONY: images
images: cluster-up ## Build both images and bring them to the dev cluster
	hack/images/build operator
	hack/images/build trainer

.PHONY: clean
clean: ## Remove what was built in the checkout
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
