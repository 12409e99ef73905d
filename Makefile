# All targets use .venv, with pinned versions. Nothing is installed globally, except the Debian packages that
# `tools` (part of `test` and `coverage`), `conformance`, `fuzz` and `fashion-mnist` install where they run as root.
# Another interpreter: make setup PYTHON=python3.12
PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup tools test test-numba test-newest test-lowest test-extras coverage mutation faults fuzz test-integration soak secure-http demo conformance conformance-mutants bench bench-server bench-secagg bench-quick bench-history bench-psm bench-servers privacy onnx-web kaitai figure docs convergence wheel dist fashion-mnist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with every extra and the development tools, at pinned versions

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "python: expected 3.11 or newer, got '$(PYTHON)'; set another with PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 \
	  || { $(PYTHON) -m venv --clear --without-pip .venv \
	       && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } \
	  || { rm -rf .venv; echo "No .venv with pip in it could be made: install Python's venv support (on Debian," \
	       "apt-get install python3-venv) and run make again."; exit 1; }

# pip reads PIP_CONSTRAINT (and, from 25.3 on, PIP_BUILD_CONSTRAINT) in its build environments too.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the pinned packages into .venv; this takes a minute or two."
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	  $(BIN)/python -m pip install --quiet -e '.[all,privacy,dev,docs]'
	@touch $@

KAITAI := spec/kaitai/node_modules/.package-lock.json

$(KAITAI): spec/kaitai/package-lock.json
	cd spec/kaitai && npm ci --ignore-scripts --no-audit --no-fund --loglevel error && touch node_modules/.package-lock.json

# $(call debian,COMMAND,PACKAGES): install Debian packages as root where a command is missing; elsewhere, say so.
define debian
	@command -v $(1) >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2); \
	else echo "$(1) is missing: everything that needs it is skipped (on Debian, install $(2))"; fi
endef

tools: ## install the tools that tests need beside Python: a C compiler, Node.js, Chromium (Debian, as root), Kaitai Struct
	$(call debian,cc,gcc libc6-dev)
	$(call debian,node,nodejs)
	$(call debian,chromium,chromium)
	@if ! command -v npm >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  timeout 300 apt-get install -y -qq --no-install-recommends npm >/dev/null 2>&1 || true; fi
	@if ! command -v npm >/dev/null; then echo "npm is missing: the description for Kaitai Struct is not tested"; \
	else $(MAKE) --no-print-directory $(KAITAI) || echo "The compiler of Kaitai Struct cannot be installed: its tests are skipped"; fi

test: setup tools ## lint, check formatting, imports and types, run the tests (Fashion-MNIST is not needed)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy
	$(BIN)/pytest -q -n auto -m "not (slow and integration)"
	@$(MAKE) --no-print-directory test-numba

test-numba: setup ## test the compiled kernels with the oldest and the newest Numba (two small environments)
	$(BIN)/python tests/tooling/numba_range.py

# Fewer tests: QUICK=1; others than those of each environment: TESTS="tests/cli ..."; some of the environments, with
# the other columns of the table left as they are: ONLY="Python 3.13, Flower;Python 3.11".
test-newest: setup tools ## run the tests with the newest versions that are allowed: docs/versions.md (several GB)
	$(BIN)/python tests/tooling/versions.py newest --tests "$(TESTS)" $(if $(QUICK),--quick) --only "$(ONLY)"

test-lowest: setup tools ## run the tests with the lowest versions that are allowed: docs/versions.md (several GB)
	$(BIN)/python tests/tooling/versions.py lowest --tests "$(TESTS)" $(if $(QUICK),--quick) --only "$(ONLY)"

# Some of the extras, with the other rows of the table left as they are: EXTRAS="secagg,envelope".
test-extras: setup ## install the wheel with each extra alone and run an example of each: docs/versions.md (several GB)
	$(BIN)/python tests/tooling/versions.py extras --only "$(EXTRAS)"

# Coverage cannot see into compiled code: a second run measures the kernels as the Python functions that they are.
KERNEL_TESTS := tests/backends/test_backend_agreement.py tests/format/test_codings.py \
  -k "not torch and not onnx and not large and not threads" -W "ignore:overflow encountered:RuntimeWarning"

coverage: setup tools ## run the tests, measure which lines and branches they run: docs/testing.md, htmlcov/index.html
	$(BIN)/coverage erase
	status=0; \
	$(BIN)/pytest -q -n auto -m "not (slow and integration)" --cov --cov-report= || status=1; \
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest -q -n auto $(KERNEL_TESTS) --cov --cov-append --cov-report= || status=1; \
	$(BIN)/python tests/tooling/coverage_table.py && exit $$status

MUTANTS := format/parsing.py format/schema.py format/checked.py format/frame.py format/rans.py \
  format/rans12.py format/rans14.py backends/numpy_rans.py face/aggregation.py face/policy.py face/policy_arguments.py \
  face/policy_toml.py face/terms.py face/intake.py face/request.py face/envelope.py face/keys.py \
  sums/state.py sums/partial.py sums/exact.py
# Without the tests that compare backends: a mutation test uses NumPy only.
MUTATION_TESTS := tests/format tests/sums tests/face \
  -k "not numba and not torch and not onnx and not backends_agree and not shorter_or_raw and not noise_times_mask"

mutation: setup ## put faults into the codec, one at a time, and see that tests fail: docs/mutation.md (MUTANTS="MODULE...")
	PYTHONPATH=tests/tooling $(BIN)/pytest -q -p mutation --mutants "$(MUTANTS)" --mutation-results .mutation.jsonl $(MUTATION_TESTS)
	$(BIN)/python tests/tooling/mutation_table.py .mutation.jsonl

faults: setup ## put faults into the codec (full disk, kills, interrupts, no memory ...), count what becomes of each: docs/testing.md
	$(BIN)/python tests/faults $(if $(POINTS),--points $(POINTS))

# Some harnesses, and the table in a document, where other rows stay: ONLY="partials,c" DOCUMENT=SECURITY.md.
SECONDS ?= 600
fuzz: setup ## give damaged bytes to every reader, for SECONDS=600 together: SECURITY.md
	$(call debian,cc,gcc libc6-dev)
	$(call debian,node,nodejs)
	$(call debian,clang,--no-install-recommends clang libclang-rt-dev)
	@PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet -e '.[fuzz]' \
	  || echo "atheris cannot be installed here: its harnesses are skipped"
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(SECONDS) --only "$(ONLY)" $(if $(DOCUMENT),--document $(DOCUMENT))

COUNT := 220

conformance-mutants: setup tools ## put faults into three implementations, one at a time, and see that the kit fails: docs/conformance_mutants.md
	PYTHONPATH=tests/tooling $(BIN)/python tests/tooling/conformance_mutants.py $(NAMES) --count $(COUNT) --results .conformance-mutants.jsonl

test-integration: setup tools ## run all tests, including those that start whole federations (installs Ray, 74 MB)
	@PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet -e '.[simulation]'
	$(BIN)/pytest -q

FRAMES ?= 100000
WORKERS ?= 1
RUNS ?= 1

soak: setup ## send FRAMES=100000 to examples/receiver, one in five hostile, and kill it thrice (WORKERS=1 RUNS=1 DOCUMENT=)
	$(BIN)/python tests/receiver/soak.py --frames $(FRAMES) --workers $(WORKERS) --runs $(RUNS) $(if $(DOCUMENT),--document)

secure-http: setup ## accuracy of examples/secure_http beside FedAvg, in its README with DOCUMENT=1
	PYTHONPATH=examples/secure_http $(BIN)/python tests/secure_http/measure.py $(if $(DOCUMENT),--document)

demo: setup ## train a small federation and write its report to runs/demo/report
	$(BIN)/fedmrn train --demo --out runs/demo
	$(BIN)/fedmrn report runs/demo --out runs/demo/report

conformance: setup tools ## run the conformance kit against every implementation in this repository; print one table
	$(call debian,s390x-linux-gnu-gcc,gcc-s390x-linux-gnu libc6-dev-s390x-cross)
	$(call debian,qemu-s390x,qemu-user)
	$(BIN)/python spec/conformance.py

bench: setup ## compare the codec with its alternatives, in ratios; update the figure and tables of docs/benchmarks.md
	$(BIN)/python -m benchmarks --figure docs/speed.png --document docs/benchmarks.md $(if $(RUN),--run $(RUN))

bench-server: setup ## measure a server's round of 100,000,000 parameters, tallies, secure sums and refused frames: docs/benchmarks.md
	$(BIN)/python -m benchmarks downlink tallies secagg hostile --largest --document docs/benchmarks.md --place server

# TenSEAL is compared with and nothing else: it has a folder of its own, outside .venv.
bench-secagg: setup ## compare secure aggregation with no protection, Flower's SecAgg+ and TenSEAL: docs/benchmarks.md
	@$(BIN)/uv pip install --quiet --no-deps --target .tenseal 'tenseal>=0.3.16,<0.4' --python $(BIN)/python \
	  || echo "TenSEAL cannot be installed here: its row is empty"
	PYTHONPATH=.tenseal $(BIN)/python -m benchmarks secure-round secure-peers --document docs/benchmarks.md --place secagg

bench-quick: setup ## run a short version of bench in about a minute; only print the results
	$(BIN)/python -m benchmarks --quick $(if $(RUN),--run $(RUN))

bench-history: setup ## time the codec's functions, save the times and compare them with the previous ones
	$(BIN)/pytest benchmarks/history.py -q -W default -p no:xdist --benchmark-autosave --benchmark-compare

bench-psm: setup ## measure the time that PSM adds to a training step of plain SGD
	$(BIN)/python -m benchmarks.psm

bench-servers: setup ## measure the memory of a Flower and an NVFlare server with 10 and 100 replies (Flower alone needs 5 GB)
	$(BIN)/python -m benchmarks.servers

privacy: setup ## compute what damped masks cost and give, for docs/guides/differential_privacy.md
	$(BIN)/python -m benchmarks.privacy --document docs/guides/differential_privacy.md

onnx-web: setup ## install onnxruntime-web and run the exported ONNX graphs in it (needs Node.js and npm)
	cd spec/decoders/onnx-web && npm ci --ignore-scripts --no-audit --no-fund
	$(BIN)/pytest -q tests/backends/test_backend_onnx_web.py

kaitai: setup $(KAITAI) ## install the compiler of Kaitai Struct and run spec/fedmrn.ksy over the vectors (needs Node.js and npm)
	$(BIN)/pytest -q tests/decoders/test_kaitai.py

RESULTS := reference_fl/results
SCALES  := $(RESULTS)/scales/fashion-mnist-iid
DOWN    := $(RESULTS)/downlink/iid
TABLE   := $(RESULTS)/reference
# CNN4 with two local epochs. Runs on IID data that belong to other experiments, too, are in the folders of those.
SKEWED  := $(wildcard $(TABLE)/labels-*seed?.jsonl $(TABLE)/dirichlet-*seed?.jsonl)
EVERY   := $(wildcard $(TABLE)/*seed?.jsonl $(SCALES)-fedavg-seed?.jsonl) \
  $(RESULTS)/rule/iid-seed0.jsonl $(wildcard $(DOWN)-fedmrn-binary-raw-seed?.jsonl)
# The README leaves out Dirichlet partitions, signed masks, SignSGD and the paper's scale, and has the grid.
FIRST   := $(filter-out $(wildcard $(TABLE)/dirichlet-* $(TABLE)/*-signed-* $(TABLE)/*-signsgd-* $(TABLE)/*-paper-*),$(EVERY)) \
  $(wildcard $(DOWN)-fedmrn-binary-seed?.jsonl)
# FedAvg and the rule, and the rule with secure aggregation, where the partition gives clients equal sizes.
SECURE  := $(filter-out $(wildcard $(TABLE)/dirichlet-* $(TABLE)/*-paper-* $(TABLE)/*-eden-* $(TABLE)/*-signsgd-*),$(EVERY)) \
  $(wildcard $(RESULTS)/secure/*seed?.jsonl)

IID2    := $(SCALES)-fedavg-seed0.jsonl $(TABLE)/iid-fedmrn-binary-paper-seed0.jsonl
GRID    := $(wildcard $(SCALES)-fedavg-seed?.jsonl $(TABLE)/iid-fedavg-seed?.jsonl $(DOWN)-*seed?.jsonl) $(RESULTS)/rule/iid-seed0.jsonl
SUMMARY := --columns "partition,method,seeds,rounds,mean of last 5,bytes up,bytes down,ratio up,ratio both"

figure: setup ## update the tables and figures of the README and docs/results.md from reference_fl/results
	$(BIN)/python -m reference_fl.report $(FIRST) -o docs/accuracy.png --total --document README.md $(SUMMARY)
	$(BIN)/python -m reference_fl.report $(EVERY) -o docs/reference.png --document docs/results.md --place reference $(SUMMARY)
	$(BIN)/python -m reference_fl.report $(SCALES)-fedavg-seed0.jsonl $(RESULTS)/rule/iid-seed0.jsonl $(wildcard $(RESULTS)/rates/*seed?.jsonl) \
	  --columns "partition,method,seeds,rounds,mean of last 5" --document docs/results.md --place rates
	$(BIN)/python -m reference_fl.report $(RESULTS)/protocol -o docs/protocol.png --document docs/results.md --place protocol
	$(BIN)/python -m reference_fl.report $(RESULTS)/ablation $(RESULTS)/protocol/fashion-mnist-iid-fedmrn-binary-seed0.jsonl \
	  --rounds 10 --document docs/results.md --place ablation
	$(BIN)/python -m reference_fl.report $(RESULTS)/scales -o docs/scales.png --document docs/results.md --place scales
	$(BIN)/python -m reference_fl.report $(RESULTS)/skew $(RESULTS)/protocol/fashion-mnist-labels-*-seed0.jsonl --rounds 10 \
	  --document docs/results.md --place skew
	$(BIN)/python -m reference_fl.report $(RESULTS)/halves $(RESULTS)/scales/fashion-mnist-iid-binary-seed[01].jsonl --rounds 20 \
	  --document docs/results.md --place halves
	$(BIN)/python -m reference_fl.report $(SECURE) --document docs/results.md --place secure $(SUMMARY)
	$(BIN)/python -m reference_fl.report $(SECURE) --steps --document docs/results.md --place steps
	$(BIN)/python -m reference_fl.batched.table $(RESULTS)/noise_rule/spread.jsonl $(RESULTS)/noise_rule/choose.jsonl \
	  --document docs/noise_rule.md --place choose
	$(BIN)/python -m reference_fl.batched.table $(RESULTS)/noise_rule/confirm.jsonl --document docs/noise_rule.md --place confirm
	$(BIN)/python -m reference_fl.batched.table $(RESULTS)/noise_rule/robust.jsonl --document docs/noise_rule.md --place robust
	$(BIN)/python -m reference_fl.batched.table $(RESULTS)/noise_rule/clients.jsonl --document docs/noise_rule.md --place clients
	$(BIN)/python -m reference_fl.batched.table $(RESULTS)/noise_rule/shared.jsonl --document docs/noise_rule.md --place shared
	$(BIN)/python -m reference_fl.batched.bars $(RESULTS)/noise_rule/frames --chosen $(RESULTS)/noise_rule/spread.jsonl \
	  $(RESULTS)/noise_rule/choose.jsonl --simulated $(RESULTS)/noise_rule/confirm.jsonl --document docs/noise_rule.md --place frames
	$(BIN)/python -m reference_fl.batched.bars $(RESULTS)/noise_rule/frames --disturbed --document docs/noise_rule.md --place disturbed
	$(BIN)/python -m reference_fl.report $(filter-out $(SKEWED),$(EVERY)) --document docs/noise_rule.md --place cnn4
	$(BIN)/python -m reference_fl.report $(IID2) $(RESULTS)/rule/iid-*seed0.jsonl --rounds 20 --document docs/noise_rule.md --place cnn4-variants
	$(BIN)/python -m reference_fl.report $(SKEWED) --document docs/noise_rule.md --place cnn4-labels
	$(BIN)/python -m reference_fl.report $(RESULTS)/rule/bits-*seed0.jsonl -o docs/rates.png --rates --document docs/noise_rule.md --place cnn2-bits
	$(BIN)/python -m reference_fl.convergence report $(RESULTS)/convergence/*.jsonl -o docs/convergence.png \
	  --document docs/convergence.md
	$(BIN)/python -m reference_fl.report $(GRID) -o docs/downlink.png --total --document docs/downlink.md --place downlink
	$(BIN)/python -m reference_fl.report $(GRID) --from-round 10 --document docs/downlink.md --place later
	$(BIN)/python -m reference_fl.report $(GRID) --times --document docs/downlink.md --place times
	$(BIN)/python -m reference_fl.report $(wildcard $(RESULTS)/downlink/full-*seed?.jsonl) --from-round 10 \
	  --columns "data,method,seeds,rounds,mean of last 5,bytes up,bytes down" --document docs/downlink.md --place full

# The rule and a scale that falls as the learning rate; scales that are constant; larger ones for skewed clients.
BINARY  := fedmrn-binary+noise=bernoulli
SIGNED  := fedmrn-signed+noise=bernoulli
FALLING := fedavg,fedmrn-binary,$(BINARY):0.3+schedule=rate,fedmrn-signed,$(SIGNED):0.1+schedule=rate
FIXED   := fedmrn-binary+noise=uniform:0.01,$(SIGNED):0.1
ALL     := $(FALLING),$(FIXED)
LONG    := fedavg,fedmrn-binary
LARGER  := $(SIGNED):0.3+schedule=rate,$(BINARY):1.0+schedule=rate
TANH    := --model mlp-tanh --learning-rate-schedule inverse-sqrt:10 --rounds 200
CONVERGENCE = $(BIN)/fedmrn sweep --threads 1 --preset convergence-$(1) --out runs/convergence/$(2) --methods "$(3)" --seeds

convergence: setup ## run the convergence experiment anew (78 short runs), and collect its curves for `make figure`
	$(call CONVERGENCE,iid,convex-iid,$(ALL)) 3
	$(call CONVERGENCE,labels,convex-labels,$(ALL)) 3
	$(call CONVERGENCE,labels,convex-labels-larger,$(LARGER)) 1
	$(call CONVERGENCE,iid,convex-iid-long,$(LONG)) 1 --rounds 2000
	$(call CONVERGENCE,labels,convex-labels-long,$(LONG)) 1 --rounds 2000
	$(call CONVERGENCE,iid,smooth-iid,$(FALLING)) 3 $(TANH)
	$(call CONVERGENCE,labels,smooth-labels,$(FALLING)) 3 $(TANH)
	for folder in runs/convergence/*/; do \
	  $(BIN)/python -m reference_fl.convergence collect $$folder -o $(RESULTS)/convergence/$$(basename $$folder).jsonl; \
	done

docs: setup ## build the documentation site into build/docs; a broken link or an undocumented name stops it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open build/docs/index.html"

wheel: setup ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

dist: setup ## build the wheel and the source distribution of a release into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation

FASHION_MNIST := /usr/share/datasets/fashion-mnist

fashion-mnist: ## install the Fashion-MNIST data set (Debian, as root)
	@if [ -d $(FASHION_MNIST) ]; then echo "Fashion-MNIST is in $(FASHION_MNIST)."; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq dataset-fashion-mnist; \
	else echo "Fashion-MNIST is missing and only root on Debian can install it here:" \
	  "run 'apt-get install dataset-fashion-mnist' as root."; exit 1; fi

clean: ## remove .venv, caches and built files; keep runs/
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .tenseal
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
