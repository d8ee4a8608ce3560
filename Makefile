# Every target makes the environments it needs first; when they are there that takes milliseconds.
# Options go in ARGS: make run ARGS="--port 9000", make test ARGS="tests/unit -k batching".

.DEFAULT_GOAL := help
.PHONY: help setup run test chaos fuzz e2e check format bench bench-compare bench-peers bench-replay bench-gpu simulate profile build deployable deploy image lock audit clean distclean

ARGS ?=
# An environment of samconfig.toml, and the template's Stage that goes with it.
ENV ?= default
STAGE = $(if $(filter default,$(ENV)),dev,$(ENV))
ENGINE_URL ?=
# What the functions run on, for the layers' build and for the template alike.
ARCH ?= aarch64
PYTHON_VERSION ?= 3.13
export ARCH PYTHON_VERSION
ARCHITECTURE = $(if $(filter aarch64,$(ARCH)),arm64,$(ARCH))
# What `make image` builds: cpu for the functions' architecture, the others run on x86_64.
POOL ?=
REPOSITORY ?=
NEURON_IMAGE ?=
IMAGE_PLATFORM = $(if $(filter cpu,$(POOL)),$(if $(filter arm64,$(ARCHITECTURE)),arm64,amd64),amd64)
# More of the template's parameters: PARAMETERS="AlarmEmail=… VpcSubnetIds=…". They go to SAM as one
# word, quotes and all: of a value with quotes in it, as JSON, it takes only what is quoted itself.
PARAMETERS ?=
quoted = '$(subst ','\'',$(1))'

# Bytecode is half of what the tools' start-up costs; where it is switched off, switch it on.
unexport PYTHONDONTWRITEBYTECODE
export SAM_CLI_TELEMETRY = 0
BIN = .venv/bin
# Three processes share the tests by files, on two cores too: much of what they do is to wait.
# PARALLEL= runs them one after the other.
PARALLEL ?= --numprocesses 3 --no-loadscope-reorder
SAM = PYTHON="$(CURDIR)/.venv-sam/bin/python" .venv-sam/bin/sam

help: ## Show this
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 16

setup: ## Make the environments that running and testing need
	@scripts/setup dev worker sam ministack clients node

run: ## Run Synapse on this machine until Ctrl-C
	@scripts/setup app worker
	@exec $(BIN)/synapse serve $(ARGS)

test: ## Run all the tests
	@scripts/setup dev worker sam ministack clients node
	@$(BIN)/pytest $(PARALLEL) $(ARGS)

chaos: ## Harm a real server at random, and see whether it keeps its promises (ARGS="--seed 7"; "--aws": what is deployed; "--lives 500": jobs, on both targets)
	@scripts/setup dev worker $(if $(findstring --aws,$(ARGS)),sam ministack)
	@$(BIN)/python -m tests.chaos $(ARGS)

fuzz: ## Send a real server 20,000 things that nobody should send (ARGS="--inputs 5000 --seed 7")
	@scripts/setup dev worker clients
	@$(BIN)/python -m tests.fuzz $(ARGS)

e2e: ## Deploy to the emulator and test what was deployed
	@scripts/setup dev worker sam ministack clients node
	@$(BIN)/pytest tests/e2e $(ARGS)

check: ## Lint, check types, import rules, the template, the state machines; look for known vulnerabilities
	@scripts/setup dev sam node tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cfn-lint template.yaml infra/*.yaml
	AWS_DEFAULT_REGION=us-east-1 $(SAM) validate --lint
	@scripts/check-state-machines
	@$(BIN)/python scripts/audit_locks.py

format: ## Format the code and mend what can be mended
	@scripts/setup dev
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

bench: ## Measure the system beside the bare engine
	@scripts/setup dev worker
	@$(BIN)/python -m bench $(ARGS)

bench-compare: ## Tell which figures are worse in the last run of bench-peers than in the published one (ARGS="BEFORE AFTER": in other files)
	@scripts/setup dev
	@$(BIN)/python -m bench.compare $(ARGS)

bench-peers: ## Measure the system beside LitServe, Ray Serve, BentoML, Celery, llama.cpp, Triton: 50 minutes (ARGS="--resume": go on)
	@scripts/setup dev worker peers bentoml
	@$(BIN)/python -m bench.peers $(ARGS)

bench-replay: ## Replay traces of LLM services against one machine, streamed and as jobs
	@scripts/setup dev worker
	@$(BIN)/python -m bench.replay $(ARGS)

bench-gpu: ## Measure the worker on an NVIDIA GPU (needs one, and Docker that can give it to containers)
	@scripts/setup dev
	@$(BIN)/python -m bench.gpu $(ARGS)

simulate: ## Simulate the system at the scale of AWS, with its own policies
	@scripts/setup dev
	@$(BIN)/python -m bench.simulator $(ARGS)

profile: ## Measure the models on each pool of this machine, for the router
	@scripts/setup app worker
	@exec $(BIN)/synapse profile $(ARGS)

build: ## Build the AWS application into .aws-sam
	@scripts/setup sam
	$(SAM) build --config-env $(ENV) $(ARGS)
	@scripts/check-layers .aws-sam/build $(PYTHON_VERSION) $(ARCH)

# Before the build, which takes minutes.
deployable:
	@test -n "$(ENGINE_URL)$(findstring ImageUri=,$(PARAMETERS))" || { echo "deploy: say where Triton is, make deploy ENGINE_URL=host:8001, or switch on a pool, PARAMETERS=CpuImageUri=…" >&2; exit 2; }

deploy: deployable build ## Deploy to AWS: make deploy ENGINE_URL=host:8001 [ENV=prod] [ARCH=x86_64]
	$(SAM) deploy --config-env $(ENV) --parameter-overrides Stage=$(STAGE) $(if $(ENGINE_URL),EngineUrl=$(ENGINE_URL)) \
	  Architecture=$(ARCHITECTURE) PythonRuntime=python$(PYTHON_VERSION) $(if $(PARAMETERS),$(call quoted,$(PARAMETERS)))

image: ## Build a pool's image and push it to ECR: make image POOL=cpu REPOSITORY=<account>.dkr.ecr.<region>.amazonaws.com/synapse
	@test -n "$(REPOSITORY)" -a -n "$(filter cpu gpu neuron,$(POOL))" || { echo "image: make image POOL=cpu|gpu|neuron REPOSITORY=<account>.dkr.ecr.<region>.amazonaws.com/synapse" >&2; exit 2; }
	docker build --file workers/Dockerfile --target aws-$(POOL) --platform linux/$(IMAGE_PLATFORM) --provenance=false \
	  $(if $(NEURON_IMAGE),--build-arg NEURON_IMAGE=$(NEURON_IMAGE)) --tag $(REPOSITORY):$(POOL) $(ARGS) .
	aws ecr get-login-password | docker login --username AWS --password-stdin $(firstword $(subst /, ,$(REPOSITORY)))
	docker push --quiet $(REPOSITORY):$(POOL)
	@docker image inspect --format '{{index .RepoDigests 0}}' $(REPOSITORY):$(POOL)

lock: ## Compile requirements/*.in to locks (ARGS=--upgrade to move the pins)
	@scripts/setup tools
	@scripts/lock $(ARGS)

audit: ## Ask the package index for known vulnerabilities in the locks
	@scripts/setup dev tools
	@$(BIN)/python scripts/audit_locks.py --strict

clean: ## Remove what was built and cached
	rm -rf .aws-sam build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

distclean: clean ## Remove the environments too
	rm -rf .venv .venv-worker .venv-sam .venv-ministack .venv-clients .venv-peers .venv-bentoml .venv-tools node_modules
