# The commands of this repository. Each makes the environments that it needs in .envs/ (python3, pip and the network).

PYTHON ?= python3
PREFECT := 3.8.8
UNSUPPORTED := 2.20.27
DEV := .envs/dev/bin/python
ENVIRONMENTS := $(PYTHON) -m tools.environments

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the commands
	@echo 'make COMMAND, where COMMAND is one of'
	@sed -n 's/^\([a-z0-9.-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{printf "%-19s%s\n", $$1, $$2}'

##### See it

.PHONY: demo
demo: env-dev env-prefect ## start a real Prefect server, run real work, show what the Agent would receive
	@$(DEV) -m lab.demo

.PHONY: check
check: env-dev ## run the check on a server: URL=http://host:4200/api or CONF=conf.yaml; TIMES=2 PAUSE=5 JSON=1
	@$(DEV) -m lab.check $(if $(URL),--url '$(URL)') $(if $(CONF),--config '$(CONF)') \
		$(if $(TIMES),--times $(TIMES)) $(if $(PAUSE),--pause $(PAUSE)) $(if $(JSON),--json)

.PHONY: preview
preview: env-dev env-prefect ## draw the dashboards from what the check sends in a demo; RECORDING=path draws them again
	@$(DEV) -m tools.preview $(if $(RECORDING),--recording '$(RECORDING)') $(if $(IMAGES),--images)

##### Test it

.PHONY: test
test: lint types metadata validate wheel env-unsupported ## all gates; pytest comes last
	@$(DEV) -m pytest -q
	@$(MAKE) --no-print-directory unit-3.13
	@$(DEV) -m tools.matrix --short oldest newest
	@cat .envs/ddev.skipped 2>/dev/null || true

.PHONY: lint
lint: env-dev ## style, format and spelling
	@$(DEV) -m ruff check .
	@$(DEV) -m ruff format --check .
	@.envs/dev/bin/codespell

.PHONY: types
types: env-dev ## mypy, strict
	@$(DEV) -m mypy

.PHONY: unit
unit: env-dev ## unit tests
	@$(DEV) -m pytest -q -m unit

.PHONY: unit-3.13
unit-3.13: ## unit tests on the Python that the Agents of today bring, where one is found
	@$(ENVIRONMENTS) dev-3.13; case $$? in \
		0) .envs/dev-3.13/bin/python -m pytest -q -m unit ;; \
		3) echo 'The unit tests were not run on Python 3.13: none was found.' ;; \
		*) exit 1 ;; \
	esac

.PHONY: integration
integration: env-dev env-prefect ## tests against a real Prefect server
	@$(DEV) -m pytest -q -m integration

.PHONY: test-matrix
test-matrix: env-dev ## tests on other versions of Prefect: VERSIONS='3.0.11 newest' DATABASE=PostgreSQL SHORT=1
	@$(DEV) -m tools.matrix $(if $(SHORT),--short) $(if $(JOBS),--jobs $(JOBS)) $(if $(DATABASE),--database $(DATABASE)) $(VERSIONS)

.PHONY: soak
soak: env-dev env-prefect ## every run counted once, for a while, through faults and kills: MINUTES=20
	@$(DEV) -m lab.soak --minutes $(or $(MINUTES),20)

.PHONY: bench
bench: env-dev env-prefect env-bench ## what a check costs on servers of several sizes, twenty-five minutes: BENCH='tiny large'
	@$(DEV) -m benchmarks $(if $(BENCH),--sizes $(BENCH))
	@$(if $(BENCH),,.envs/bench/bin/python -m benchmarks.plot .benchmarks/results.json docs/images/scale.png)

.PHONY: metadata
metadata: env-dev ## metadata.csv and the metric tables are as declared
	@$(DEV) -m tools.metadata --check

.PHONY: validate
validate: ## Datadog's own validators, where a Python 3.13 is found
	@$(PYTHON) -m tools.validate

.PHONY: wheel
wheel: env-dev env-prefect env-agent ## build the wheel into dist/, run it where only an Agent's packages are
	@$(DEV) -m tools.wheel

##### Change it

.PHONY: format
format: env-dev ## put the code into its format
	@$(DEV) -m ruff check --fix .
	@$(DEV) -m ruff format .

.PHONY: generate
generate: env-dev ## write conf.yaml.example, config_models, metadata.csv, the metric tables and the dashboards
	@$(PYTHON) -m tools.validate --sync
	@$(DEV) -m tools.metadata --write
	@$(DEV) -m tools.dashboards --write

.PHONY: record
record: env-dev env-prefect ## record the fixtures of the unit tests from a real server
	@$(DEV) -m tools.record

.PHONY: record-logs
record-logs: env-dev env-prefect ## record the samples of the log pipeline from real processes
	@$(DEV) -m tools.record_logs

.PHONY: record-troubles
record-troubles: env-dev env-prefect ## record the troubles that the monitors are tested with, from a real server
	@$(DEV) -m lab.troubles prefect/tests/fixtures/series/troubles.json.gz

.PHONY: environments
environments: env-dev env-agent env-prefect ## make the environments, without anything else

.PHONY: clean
clean: ## remove environments, caches and what was built
	rm -rf .envs dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks prefect/dist
	find benchmarks lab tools prefect -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: env-dev env-agent env-bench env-prefect env-unsupported
env-dev:
	@$(ENVIRONMENTS) dev
env-agent:
	@$(ENVIRONMENTS) agent
env-bench:
	@$(ENVIRONMENTS) bench
env-prefect:
	@$(ENVIRONMENTS) prefect-$(PREFECT)
env-unsupported:
	@$(ENVIRONMENTS) prefect-$(UNSUPPORTED)
