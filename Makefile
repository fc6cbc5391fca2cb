# The two commands for everybody are `make demo` and `make test`; they set everything up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
IMAGES ?= 60000
# One test process per core.
JOBS ?= auto

.PHONY: demo check test test-slow test-oldest lint docs peers test-peers test-prism test-dataflow stores test-stores test-browser test-large \
  cluster-start cluster-stop test-cluster faults test-faults test-storage-faults soak fuzz bench dist sdist-check requirements audit clean

# Environments: for most targets, for the pages of docs/, for Dataflow's libraries, and the oldest versions that setup.py
# allows (of which one needs pkg_resources). All but the last take only files whose hashes are listed, and only wheels: nothing of theirs runs to be installed.
HASHED := --require-hashes --only-binary :all: --requirement
$(VENV)/.installed: INSTALL := $(HASHED) requirements.txt
.fuzz/.installed: INSTALL := $(HASHED) requirements.txt
.docs/.installed: INSTALL := $(HASHED) requirements-docs.txt
# No wheels of google-apitools.
.dataflow/.installed: INSTALL := $(HASHED) requirements.txt --requirement requirements-dataflow.txt --no-binary google-apitools
.oldest/.installed: INSTALL := --constraint requirements-oldest.txt pip 'setuptools>=77,<80' '.[test]'
$(VENV)/.installed .docs/.installed .dataflow/.installed .oldest/.installed .fuzz/.installed: %/.installed: setup.py $(wildcard requirements*.txt)
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 14) or sys.exit("needs Python 3.10 to 3.13, found " + sys.version)'
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet $(INSTALL)
	# compat: a plain path instead of an import hook, which would slow every start.
	PYTHONWARNINGS=ignore $*/bin/python -m pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	touch $@

# From requirements.in; without the files that are there, the newest versions of everything that it does not pin.
RESOLVE = build/uv/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --constraint requirements.in \
  --custom-compile-command 'make requirements'
requirements:
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip install --quiet --constraint requirements.in uv
	printf 'pip\nsetuptools\n' > build/uv/installers.in && echo build > build/uv/builders.in
	$(RESOLVE) --python-version 3.10 --extra dataflow setup.py build/uv/installers.in -o requirements-dataflow.txt
	$(RESOLVE) --python-version 3.10 --constraint requirements-dataflow.txt --extra aws --extra gcp --extra test --extra lint \
	  setup.py build/uv/installers.in build/uv/builders.in -o requirements.txt
	$(RESOLVE) --python-version 3.11.5 --constraint requirements.txt --extra docs setup.py build/uv/installers.in -o requirements-docs.txt

# What is installed, compared with requirements.txt and the digests that packages recorded; needs no network.
audit: $(VENV)/.installed
	$(BIN)/python deploy/audit.py requirements.txt

demo: $(VENV)/.installed
	rm -rf demo && mkdir demo
	$(BIN)/beam-cifar make-sample demo/cifar-10-python.tar.gz --images $(IMAGES) --tar
	$(BIN)/beam-cifar info demo/cifar-10-python.tar.gz
	$(BIN)/beam-cifar convert -i demo/cifar-10-python.tar.gz -f parquet -o demo/cifar10-parquet
	$(BIN)/python examples/show_parquet.py demo/cifar10-parquet
	$(BIN)/beam-cifar convert --input-format cifar --input-path demo/cifar-10-python.tar.gz \
	  --output-format imagenet --output-dir demo/dogs --filter '/item[annotation/label="dog"]'
	$(BIN)/python examples/contact_sheet.py demo/dogs demo/dogs.png
	$(BIN)/beam-cifar convert -i demo/cifar10-parquet -f imagenet -o demo/classes --limit 2000
	$(BIN)/python examples/contact_sheet.py demo/classes demo/classes.png --images 20
	$(BIN)/beam-cifar diff demo/cifar-10-python.tar.gz demo/cifar10-parquet
	$(BIN)/beam-cifar report demo/cifar10-parquet -o demo/report.html

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# What to run before every commit, in less than two minutes: style, types, and tests of single modules.
check: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/unit tests/typing tests/pickles tests/images tests/planning tests/steps

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python tests/typing/api.py

# The pages of docs/ as a site, in build/site.
docs: .docs/.installed
	NO_MKDOCS_2_WARNING=1 .docs/bin/python -m mkdocs build --strict

# What takes long for its kind: worker processes, object stores, jobs that are killed at every step.
test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m 'slow and not stores' -n $(JOBS) --dist worksteal

# The oldest versions that setup.py allows.
test-oldest: .oldest/.installed
	.oldest/bin/python -m pytest -n $(JOBS) --dist worksteal

# Readers of other projects, in an environment of their own.
.peers/.installed: tests/peers/requirements.txt
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip install --quiet --upgrade pip
	.peers/bin/python -m pip install --quiet --no-deps --requirement tests/peers/requirements.txt
	touch $@

peers: .peers/.installed

test-peers: $(VENV)/.installed .peers/.installed
	$(BIN)/python -m pytest tests/peers -n $(JOBS)

# Beam's own portable runner, built from its source; needs Go.
.prism/prism:
	GOBIN=$(CURDIR)/.prism go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0

test-prism: $(VENV)/.installed .prism/prism
	BEAM_CIFAR_PRISM=$(CURDIR)/.prism/prism $(BIN)/python -m pytest -m prism

# Jobs translated for Google Cloud Dataflow, offline.
test-dataflow: .dataflow/.installed
	.dataflow/bin/python -m pytest tests/dataflow -n $(JOBS)

# Object stores, built from their sources; needs Go 1.26. BEAM_CIFAR_MINIO and BEAM_CIFAR_FAKE_GCS name others.
MINIO := v0.0.0-20260212201848-7aac2a2c5b7c
FAKE_GCS := v1.56.1
STORES := $(if $(BEAM_CIFAR_MINIO),,.stores/.minio-$(MINIO)) $(if $(BEAM_CIFAR_FAKE_GCS),,.stores/.fake-gcs-$(FAKE_GCS))

.stores/.minio-$(MINIO):
	GOBIN=$(CURDIR)/.stores go install github.com/minio/minio@$(MINIO)
	touch $@

.stores/.fake-gcs-$(FAKE_GCS):
	GOBIN=$(CURDIR)/.stores go install github.com/fsouza/fake-gcs-server@$(FAKE_GCS)
	touch $@

stores: $(STORES)

test-stores: $(VENV)/.installed $(STORES)
	$(BIN)/python -m pytest -m stores

# A Flink cluster on this machine; needs Java and Maven. Settings are listed in deploy/flink/settings.sh.
.flink/.complete: deploy/flink/get.sh deploy/flink/settings.sh deploy/flink/job-server/pom.xml $(VENV)/.installed
	deploy/flink/get.sh
	touch $@

cluster-start: .flink/.complete
	deploy/flink/cluster.sh start

cluster-stop:
	deploy/flink/cluster.sh stop

# On a cluster of its own, which is stopped whatever happens.
test-cluster: .flink/.complete
	trap 'CLUSTER_RUN=$(CURDIR)/.flink/test deploy/flink/cluster.sh stop' EXIT; trap 'exit 130' INT TERM; \
	BEAM_CIFAR_CLUSTER=$(CURDIR)/.flink/test $(BIN)/python -m pytest tests/cluster --durations=0

# Jobs that are killed, and come to their end: two of each kind, and the whole table of docs/faults.md (half an hour).
test-faults: .flink/.complete
	$(BIN)/python -m pytest tests/faults

faults: .flink/.complete
	$(BIN)/python benchmarks/faults.py $(FAULTS)

# Every system call of a job fails once, and is a place to be killed at: some trials for each kind of job, or all with
# TRIALS=0 (hours). A compiler that is missing is installed, on Debian and its relatives.
TRIALS ?= 16
test-storage-faults: $(VENV)/.installed
	command -v gcc > /dev/null || { apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends gcc libc6-dev; }
	BEAM_CIFAR_STORAGE_TRIALS=$(TRIALS) $(BIN)/python -m pytest tests/storage_faults -n $(JOBS)

# The pages of `beam-cifar report` in Chromium; where there is none it is installed, on Debian and its relatives. Another
# one is named by BEAM_CIFAR_CHROMIUM. Screenshots go to build/screenshots.
test-browser: $(VENV)/.installed
	$(BIN)/python -c 'from tests.helpers import browser; browser.find_browser() or exit(1)' || { apt-get update --quiet \
	  && apt-get install --quiet --yes --no-install-recommends chromium fonts-dejavu-core; }
	BEAM_CIFAR_SCREENSHOTS=$(CURDIR)/build/screenshots $(BIN)/python -m pytest tests/browser

# Parsers with damaged and hostile input, guided by coverage; FUZZ="batch tar --runs 1e6" says of which, and how much.
# Where atheris has no wheel, the mutators of tests/fuzz work alone.
.fuzz/.atheris: .fuzz/.installed tests/fuzz/requirements.txt
	.fuzz/bin/python -m pip install --quiet $(HASHED) tests/fuzz/requirements.txt || true
	touch $@

fuzz: .fuzz/.atheris
	.fuzz/bin/python -m tests.fuzz $(FUZZ)

# Full-size sets: some minutes, and some GB of disk.
test-large: $(VENV)/.installed
	$(BIN)/python -m pytest -m large

# Random jobs for SOAK minutes under load: the same bytes in every way to run them, and no growth.
SOAK ?= 60
soak: $(VENV)/.installed
	$(BIN)/python -m tests.helpers.soak --minutes $(SOAK)

# Beside other tools, some 20 minutes: `make bench BENCH="parquet --runs 3"`; alone: `make bench BENCH=growth`; see
# benchmarks/README.md.
bench: $(VENV)/.installed $(if $(BEAM_CIFAR_PEERS)$(filter growth,$(firstword $(BENCH))),,.peers/.installed)
	$(BIN)/python benchmarks/run.py $(BENCH)

# The source distribution and the wheel of the last commit, the same bytes for everybody.
dist: $(VENV)/.installed
	$(BIN)/python deploy/dist.py dist

# Builds both twice, with the same bytes, installs from the source distribution somewhere else, and runs it.
sdist-check: $(VENV)/.installed
	rm -rf build/sdist build/sdist-again build/sdist-venv
	$(BIN)/python deploy/dist.py build/sdist
	umask 077 && TZ=Asia/Kathmandu LC_ALL=C $(BIN)/python deploy/dist.py build/sdist-again
	cd build/sdist && for file in *; do cmp "$$file" "../sdist-again/$$file" || exit 1; done
	$(PYTHON) -m venv build/sdist-venv
	build/sdist-venv/bin/python -m pip install --quiet $(HASHED) requirements.txt
	build/sdist-venv/bin/python -m pip install --quiet --no-deps --no-build-isolation build/sdist/beam_cifar-*.tar.gz
	build/sdist-venv/bin/python -m pip check
	cd build && sdist-venv/bin/beam-cifar make-sample sample --images 100 \
	  && sdist-venv/bin/beam-cifar convert -i sample -f parquet -o sample-parquet && rm -rf sample sample-parquet*

clean:
	rm -rf $(VENV) .oldest .docs .peers .prism .flink .dataflow .fuzz .stores demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
