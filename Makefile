# The commands of this repository. Each makes the environments that it needs in .envs/ (python3, pip and the network).

PYTHON ?= python3
# Without bytecode each of the many processes would compile what it imports.
export PYTHONDONTWRITEBYTECODE :=
PREFECT := 3.8.8
UNSUPPORTED := 2.20.27
DEV := .envs/dev/bin/python
# Tests against servers wait most of the time. Those of a module share its servers.
TOGETHER := -n 3 --dist loadscope --no-loadscope-reorder
ENVIRONMENTS := $(PYTHON) -m tools.environments
# The texts that a person reads. tools/prose/ has the rules: those of proselint, and words for which there is a plainer one.
PROSE := $(wildcard *.md docs/*.md lab/*.md prefect/*.md prefect/assets/monitors/*.json) prefect/assets/configuration/spec.yaml

# Two stages go side by side. Those that compute let those go first that measure time on servers. What a stage prints
# comes at its end, where make can do that (GNU make 4.0), and how long it took at the end of all.
FIRST := environments integration slow postgresql oldest newest test-matrix soak
STAGES := .envs/stages
LANES := --no-print-directory --jobs=2 --keep-going $(if $(filter output-sync,$(.FEATURES)),--output-sync=recurse)
# `make -n` runs the recipes that start make again: it is to write no times, and to say no more than what it would do.
IS_DRY = $(findstring n,$(firstword -$(MAKEFLAGS)))
SUMMARY = $(if $(IS_DRY),:,echo; cat $(STAGES) $$(ls .envs/*.skipped 2>/dev/null))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the commands
	@echo 'make COMMAND, where COMMAND is one of'
	@sed -n 's/^\([a-z0-9.-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{printf "%-19s%s\n", $$1, $$2}'

##### See it

.PHONY: demo
demo: env-live ## start a real Prefect server, run real work, show what the Agent would receive
	@$(DEV) -m lab.demo

.PHONY: check
check: env-dev ## what is wrong on a server, and what it costs to watch: URL=http://host:4200/api or CONF=conf.yaml; FULL=1 TIMES=2 PAUSE=5 JSON=1 LOGS=1
	@$(DEV) -m lab.check $(if $(URL),--url '$(URL)') $(if $(CONF),--config '$(CONF)') \
		$(if $(TIMES),--times $(TIMES)) $(if $(PAUSE),--pause $(PAUSE)) $(if $(FULL),--full) $(if $(JSON),--json) $(if $(LOGS),--logs)

.PHONY: preview
preview: env-live ## draw the dashboards from what the check sends in a demo; RECORDING=path draws them again
	@$(DEV) -m tools.preview $(if $(RECORDING),--recording '$(RECORDING)') $(if $(IMAGES),--images)

##### Into Datadog

# The keys stay in the environment: DD_API_KEY and DD_APP_KEY.
IMPORT = $(if $(NOTIFY),--notify '$(NOTIFY)') $(if $(TAGS),--tags '$(TAGS)') $(if $(RUNBOOK),--runbook '$(RUNBOOK)')

.PHONY: import
import: env-dev ## dashboards, monitors ... into an account: SITE=datadoghq.eu DRY_RUN=1 ONLY=monitors NOTIFY=@team TAGS=team:a RUNBOOK=https://... FORCE=1
	@$(DEV) -m tools.importing $(if $(SITE),--site '$(SITE)') $(if $(DRY_RUN),--dry-run) $(if $(FORCE),--force) \
		$(addprefix --only ,$(ONLY)) $(IMPORT)

.PHONY: assets
assets: env-dev ## write the assets as Datadog's API takes them into dist/assets/ (NOTIFY, TAGS, RUNBOOK as for import)
	@$(DEV) -m tools.importing --files-only $(IMPORT)

##### Test it

.PHONY: test
test: ## all gates: lint, types, validators, wheel, unit tests, and the tests against a real server with SQLite
	@mkdir -p .envs && rm -f $(STAGES) .envs/*.skipped
	@$(MAKE) --no-print-directory stage-environments
	@$(MAKE) $(LANES) $(addprefix stage-,integration lint types metadata validate wheel unit); \
		status=$$?; $(SUMMARY); exit $$status

.PHONY: test-others
test-others: ## what .ci/run does after `make test`: slow tests, PostgreSQL, the ends of what is supported, another Python
	@mkdir -p .envs && rm -f $(STAGES) .envs/*.skipped
	@$(MAKE) $(LANES) $(addprefix stage-,slow unit-oldest-base unit-newest-base oldest newest postgresql); \
		status=$$?; $(SUMMARY); exit $$status

.PHONY: test-all
test-all: test ## `make test`, all versions of Prefect on both databases, long histories, a soak: more than an hour
	@mkdir -p .envs && rm -f $(STAGES) .envs/*.skipped
	@status=0; $(MAKE) --no-print-directory stage-test-matrix || status=1; \
		$(MAKE) $(LANES) $(addprefix stage-,slow histories postgresql unit-oldest-base unit-newest-base) || status=1; \
		$(MAKE) --no-print-directory stage-soak MINUTES=5 || status=1; $(SUMMARY); exit $$status

TIMED = started=$$(date +%s); \
	$(if $(filter $*,$(FIRST)),,nice -n 5) $(MAKE) --no-print-directory $* && result=passed || result=FAILED; \
	printf '%-20s%s in %d s\n' '$*' $$result $$(($$(date +%s) - started)) | tee -a $(STAGES); \
	test $$result = passed

stage-%:
	@$(if $(IS_DRY),$(MAKE) --no-print-directory $*,$(TIMED))

.PHONY: lint
lint: env-dev ## style, format, spelling and prose
	@$(DEV) -m ruff check .
	@$(DEV) -m ruff format --check .
	@$(DEV) -m codespell_lib -D - -D tools/prose/words.txt
	@$(DEV) -m proselint -o compact check --config tools/prose/proselint.json $(PROSE)

.PHONY: types
types: env-dev ## mypy, strict
	@$(DEV) -m mypy

.PHONY: unit
unit: env-dev ## unit tests
	@$(DEV) -m pytest -q -m unit -n auto

.PHONY: histories
histories: env-dev ## the properties of the check with many more examples, different ones each time
	@$(DEV) -m pytest -q -m unit -n auto --hypothesis-profile=deep -k 'exactly_once or fuzz or future_runs or leak'
	@$(DEV) -m pytest -q --hypothesis-profile=deep prefect/tests/integration/test_hostile_server.py -k arbitrary_bytes

# The newest base is that of the Agents of today, on their Python 3.13 where one is found.
.PHONY: unit-oldest-base unit-newest-base
unit-oldest-base: ## unit tests of the check on the oldest datadog-checks-base that it promises to run with
	@$(ENVIRONMENTS) base-oldest
	@.envs/base-oldest/bin/python -m pytest -q -m 'unit and not one_python' -n auto
unit-newest-base: ## unit tests of the check on the newest datadog-checks-base, with Python 3.13 where one is found
	@$(ENVIRONMENTS) base-newest
	@.envs/base-newest/bin/python -m pytest -q -m 'unit and not one_python' -n auto
	@.envs/base-newest/bin/python -V | grep -F ' 3.13.' || \
		echo 'Python 3.13 skipped: none was found' | tee .envs/python.skipped

.PHONY: integration
integration: env-live env-unsupported ## tests against a real Prefect server, with SQLite
	@$(DEV) -m pytest -q -m 'integration and not (postgresql or slow)' $(TOGETHER)

.PHONY: slow
slow: env-live ## dead and lost services, lost runs, and hostile servers: tests that take minutes each
	@$(DEV) -m pytest -q -m slow $(TOGETHER)

.PHONY: postgresql
postgresql: env-live ## those of them that look at the database, with PostgreSQL where it is installed
	@$(DEV) -m pytest -q -m postgresql --deselect prefect/tests/integration/test_full_run.py $(TOGETHER)

.PHONY: oldest newest
oldest newest: env-dev ## the full run on the oldest, or newest, supported Prefect (the newest with PostgreSQL)
	@$(DEV) -m tools.matrix --short $@

.PHONY: test-matrix
test-matrix: env-dev ## tests on other versions of Prefect: VERSIONS='3.0.11 newest' DATABASE=PostgreSQL SHORT=1
	@$(DEV) -m tools.matrix $(if $(SHORT),--short) $(if $(JOBS),--jobs $(JOBS)) $(if $(DATABASE),--database $(DATABASE)) $(VERSIONS)

.PHONY: soak
soak: env-live ## every run counted once, for a while, through faults and kills: MINUTES=20 DATABASE=PostgreSQL
	@$(DEV) -m lab.soak --minutes $(or $(MINUTES),20) $(if $(filter PostgreSQL,$(DATABASE)),--postgresql)

.PHONY: bench
bench: env-live env-bench ## what a check costs on servers of several sizes: BENCH='tiny large' MINUTES=10 FORMER=commit DATABASE=PostgreSQL
	@$(DEV) -m benchmarks $(if $(BENCH),--sizes $(BENCH)) $(if $(FORMER),--former $(FORMER)) \
		$(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(filter PostgreSQL,$(DATABASE)),--postgresql)
	@$(if $(BENCH)$(filter PostgreSQL,$(DATABASE)),,.envs/bench/bin/python -m benchmarks.plot .benchmarks/results.json \
		docs/images/scale.png && $(DEV) -m benchmarks.pages)

.PHONY: plans
plans: env-live ## how SQLite and PostgreSQL look up what a check asks for, on a huge server: writes docs/scale.md
	@$(DEV) -m benchmarks.plans

.PHONY: metadata
metadata: env-dev ## metadata.csv and the metric tables are as declared
	@$(DEV) -m tools.metadata --check

.PHONY: validate
validate: ## Datadog's own validators, where a Python 3.13 is found
	@$(PYTHON) -m tools.validate

.PHONY: wheel
wheel: env-live env-agent ## build the wheel into dist/, run it where only an Agent's packages are
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
record: env-live ## record the fixtures of the unit tests from a real server
	@$(DEV) -m tools.record

.PHONY: record-logs
record-logs: env-live ## record the samples of the log pipeline from real processes
	@$(DEV) -m tools.record_logs

.PHONY: record-troubles
record-troubles: env-live ## record the troubles that the monitors are tested with, from a real server
	@$(DEV) -m lab.troubles prefect/tests/fixtures/series/troubles.json.gz

.PHONY: environments
environments: ## make the environments that `make test` needs, without anything else
	@$(ENVIRONMENTS) dev agent prefect-$(PREFECT) prefect-$(UNSUPPORTED) ddev || test $$? = 3

.PHONY: requirements
requirements: ## write requirements/*.txt, with hashes, from *.in; what is pinned stays, UPGRADE=1 renews all
	@$(ENVIRONMENTS) uv
	@for list in $(filter-out requirements/tools.in,$(sort $(wildcard requirements/*.in))); do \
		echo "$$list"; \
		.envs/uv/bin/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --no-annotate $(if $(UPGRADE),--upgrade) \
			--python-version $$(case $$list in */ddev.in) echo 3.13;; *) echo 3.11;; esac) \
			--custom-compile-command 'make requirements' "$$list" --output-file "$${list%.in}.txt" || exit 1; \
	done

.PHONY: clean
clean: ## remove environments, caches and what was built
	rm -rf .envs dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks prefect/dist
	find benchmarks lab tools prefect -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: env-dev env-live env-agent env-bench env-unsupported
env-dev:
	@$(ENVIRONMENTS) dev
env-live:
	@$(ENVIRONMENTS) dev prefect-$(PREFECT)
env-agent:
	@$(ENVIRONMENTS) agent
env-bench:
	@$(ENVIRONMENTS) bench
env-unsupported:
	@$(ENVIRONMENTS) prefect-$(UNSUPPORTED)
