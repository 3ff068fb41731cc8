# Everything starts here: `make help` lists it. Each target does its own set-up and is green offline afterwards.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup rehearse test lint unit coverage mutants integration integration-farm integration-rehearsal drills molecule bench docs build clean

NODES ?= 5
PYTHON := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo "  NODES=5      how many render nodes 'make rehearse' starts"

setup: ## Install what is missing (.venv from PyPI, Debian packages)
	@scripts/setup.sh

rehearse: setup ## Rehearse the whole farm: bake, up, proofs, down, leftovers (needs root, costs nothing)
	@$(PYTHON) -m rehearsal prove --nodes $(NODES)

test: setup ## Everything that must be green: lint, unit, integration, molecule (two at a time, less than 10 minutes)
	@echo "Running lint, unit, integration and molecule, two at a time; each shows its output when it ends."
	@# what takes longest goes first
	@MOLECULE_JOBS=1 $(MAKE) --no-print-directory -j2 --output-sync=target \
		integration-farm molecule unit integration-rehearsal lint

lint: setup ## Style, types, Ansible's rules, generated documents
	ruff check .
	ruff format --check .
	mypy farmnode rehearsal plugins/module_utils plugins/plugin_utils plugins/inventory
	@# without the EC2 inventory, which needs an account: the playbooks could not be read, and would count as clean
	ANSIBLE_INVENTORY=inventory/lan.yml ansible-lint --offline
	$(PYTHON) scripts/role_readmes.py --check

unit: setup ## Unit tests: no root, no network
	$(PYTHON) -m pytest tests/unit tests/templates

coverage: setup ## How much of farmnode the unit tests reach, branches included (95 % at least)
	$(PYTHON) -m coverage run --data-file=.cache/coverage -m pytest tests/unit/farmnode
	$(PYTHON) -m coverage report --data-file=.cache/coverage

mutants: setup ## Change farmnode's identity, routes and watch rules in small ways; tests must notice (minutes; lists the survivors)
	$(PYTHON) -m pip install -q --disable-pip-version-check --group mutants
	$(PYTHON) -m mutmut run
	$(PYTHON) -m mutmut results

integration: integration-rehearsal integration-farm ## The rehearsal itself and the farm on it (needs root)

integration-rehearsal: setup
	$(PYTHON) -m pytest tests/integration/rehearsal -m "not drill"

integration-farm: setup
	$(PYTHON) -m pytest tests/integration --ignore tests/integration/rehearsal -m "not drill"

drills: setup ## What goes wrong, each case for real, and the whole farm by Molecule (needs root, minutes)
	$(PYTHON) -m pytest tests/integration -m drill
	scripts/molecule.sh default

molecule: setup ## One scenario for each role, on rehearsal hosts (needs root)
	scripts/molecule.sh

bench: setup ## Measure inventory, tunnel, controller and farm, write docs/benchmarks.md (needs root and a quiet machine, 25 minutes)
	$(PYTHON) -m tests.bench

docs: setup ## Write the role READMEs from their argument specifications
	$(PYTHON) scripts/role_readmes.py

build: setup ## Build the collection's archive
	ansible-galaxy collection build --force

clean: ## Remove what set-up and runs left here (a running rehearsal is ended first)
	-@[ -x $(PYTHON) ] && $(PYTHON) -m rehearsal down
	rm -rf .venv .rehearsal .cache mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis
