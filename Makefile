# SPDX-License-Identifier: Apache-2.0
# Debian 12; every target works as root, or as a user with sudo.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup test test-browser lint demo demo-kernel demo-sidecar bench soak kernel kernel-deb kernel-selftests kernel-releases \
	test-kernel test-container image image-full image-arm64 web-libraries licences lock man clean packages bench-packages

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP = $(PYTHON) -m pip --quiet --disable-pip-version-check
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=CI,DEMO_ONCE,SOAK_MINUTES,SOAK_SEED,KERNEL_TREE)

# A release of Linux for the targets about the kernel: make test-kernel TREE=7.3.4
ifdef TREE
export KERNEL_TREE := $(TREE)
endif

# bpfcc: compiles the classifiers; iproute2, iperf3, mptcpize, tcpdump, bpftool, iptables, curl: tests and demo;
# python3-wheel: a test builds a third party's package; clang-format, shellcheck, yamllint: lint.
PACKAGES := python3 python3-venv python3-bpfcc linux-libc-dev iproute2 iperf3 mptcpize tcpdump bpftool \
	mount procps util-linux python3-wheel clang-format shellcheck yamllint tshark iptables curl
# npm: fetches the libraries of the page; whoever has one of another origin keeps it.
PACKAGES += $(if $(shell command -v npm),,npm)
# mptcpd: the peer of the benchmark. Its package starts a daemon where systemd runs, hence not above.
BENCH_PACKAGES := gcc libc6-dev libmptcpd3-dev mptcpd

# fonts-dejavu-core: without a font, pictures have no text.
BROWSER_PACKAGES := chromium fonts-dejavu-core

AXE := build/axe/node_modules/axe-core/axe.min.js
# Unpacked, not installed: its package starts a daemon where systemd runs, too.
PROMETHEUS := build/prometheus/usr/bin/prometheus

SELFTESTS_PACKAGES := gcc libc6-dev rsync iptables nftables iputils-ping ethtool

# The times of a build are those of the last commit: two builds of one day are equal.
IMAGE_NAME ?= mptcp-pm
IMAGE_TARGET ?= slim
IMAGE_TAG ?= $(IMAGE_TARGET)
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
BUILD_IMAGE = DOCKER_BUILDKIT=1 docker build --file docker/Dockerfile --build-context ca=/etc/ssl/certs \
	--build-arg SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(if $(PIP_INDEX_URL),--build-arg PIP_INDEX_URL) \
	--build-arg VERSION=$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' pm/__init__.py) \
	--build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null) \
	--build-arg CREATED=$(shell date --utc --date=@$(SOURCE_DATE_EPOCH) +%FT%TZ)

# By content, so that a changed file is installed again and a touched one is not.
STAMP := $(VENV)/setup-$(shell cat pyproject.toml requirements-dev.txt | sha256sum | cut -c1-16)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: packages web-libraries $(PROMETHEUS) $(STAMP) ## install Debian packages and the virtual environment .venv (quick when all is there)

test: setup ## unit tests, then tests on the real kernel (network namespaces, cgroups: needs root)
	@$(AS_ROOT) $(PYTHON) -m pytest tests/unit tests/net

lint: setup ## ruff, import-linter, mypy, yamllint, kubernetes-validate, reuse, clang-format, shellcheck
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/mypy
	@# Tests compare with pyroute2's own classes, which have no type information.
	$(VENV)/bin/mypy --allow-untyped-calls tests
	yamllint --strict .
	@# The oldest Kubernetes with native sidecars, and the newest that is known.
	$(VENV)/bin/kubernetes-validate --quiet --strict -k 1.29.0 docker/kubernetes/deployment.yaml
	$(VENV)/bin/kubernetes-validate --quiet --strict docker/kubernetes/deployment.yaml
	$(VENV)/bin/reuse lint --quiet || $(VENV)/bin/reuse lint --lines
	find bpf_pm docs tests -name '*.[ch]' 2>/dev/null | xargs --no-run-if-empty clang-format --dry-run -Werror
	grep -rlIE '^#!.*\b(ba)?sh\b' --exclude-dir={.git,.venv,build} . | xargs --no-run-if-empty shellcheck

test-browser: setup $(AXE) ## the page in headless Chromium, with real sessions; pictures of it in build/browser
	$(call install_missing,$(BROWSER_PACKAGES))
	@$(AS_ROOT) $(PYTHON) -m pytest tests/browser

demo: setup ## policies at work on real traffic, live until Ctrl-C; DEMO_ONCE=1 checks and prints once
	@$(AS_ROOT) $(PYTHON) -m tests.demo

demo-kernel: setup ## the same demo on the patched kernel (User Mode Linux), whose programs open the subflows
	@MPTCP_PM_TEST_DATAPATH=bpf kernel/run --mem 1G --timeout 86400 -- $(PYTHON) -B -m tests.demo

demo-sidecar: setup ## containers with a sidecar (docker/compose.yaml); a private engine where no docker answers
	@docker/with-engine $(PYTHON) -m tests.demo.sidecar

bench: setup bench-packages build/bench/second_path.so ## join delay, start, memory, API speed, against mptcpd and the kernel
	@$(AS_ROOT) $(PYTHON) -m tests.bench

soak: setup ## an hour of kills, lost events, flapping links and hostile neighbours; SOAK_MINUTES=2 is a short form
	@$(AS_ROOT) $(PYTHON) -B -m tests.soak

kernel: setup ## build the patched kernel as User Mode Linux (kept by content, outside the checkout)
	@kernel/build uml --fallback

kernel-deb: ## Debian packages of the patched kernel, for x86-64 servers and virtual machines
	@kernel/build deb

kernel-selftests: ## upstream's MPTCP selftests, patched and unpatched kernel compared (an hour)
	$(call install_missing,$(SELFTESTS_PACKAGES))
	@kernel/selftests --full

kernel-releases: setup ## kernel/releases.tsv: where the series applies; RECORD=builds, tests, selftests: what comes of these
	@$(PYTHON) -m tests.kernel.releases $(if $(RECORD),--record $(RECORD)) $(if $(TREE),--tree $(TREE))

test-kernel: setup ## tests under the patched kernel; TREE=7.3.4: on that release
	@$(AS_ROOT) $(PYTHON) -m pytest tests/kernel

test-container: setup ## tests of the sidecar in containers; a private engine where no docker answers
	@docker/with-engine $(PYTHON) -m pytest tests/container

image: ## container image mptcp-pm:slim (without Docker: docker/with-engine make image)
	@pm/web/fetch
	@$(BUILD_IMAGE) $(BUILD_FLAGS) --target $(IMAGE_TARGET) --tag $(IMAGE_NAME):$(IMAGE_TAG) .

image-full: ## container image mptcp-pm:full, which has BCC for C of third parties
	@$(MAKE) --no-print-directory image IMAGE_TARGET=full

image-arm64: ## container image mptcp-pm:slim-arm64, built by emulation (some minutes)
	@docker/with-engine docker/image-arm64

# libbpfcc and libbpf1 are what python3-bpfcc loads into the service's processes.
licences: setup ## licences of all dependencies: Python packages, with what these need, the page's libraries, Debian's, and what tests alone fetch
	@$(PYTHON) -m tests.licences $(PACKAGES) libbpfcc libbpf1 --tests prometheus $(BROWSER_PACKAGES)

PIP_COMPILE := CUSTOM_COMPILE_COMMAND='make lock' build/lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe \
	--strip-extras --no-annotate --no-emit-index-url --no-emit-find-links

lock: packages ## renew requirements-dev.txt and docker/requirements*.txt: versions and hashes of Python packages
	/usr/bin/python3 -m venv build/lock
	build/lock/bin/pip --quiet --disable-pip-version-check install 'pip-tools>=7.6,<8'
	$(PIP_COMPILE) --upgrade --extra dev --build-deps-for editable -o requirements-dev.txt pyproject.toml
	$(PIP_COMPILE) --upgrade --constraint requirements-dev.txt -o docker/requirements.txt pyproject.toml
	$(PIP_COMPILE) --upgrade --constraint requirements-dev.txt --only-build-deps --build-deps-for wheel \
	    -o docker/requirements-build.txt pyproject.toml

man: setup ## docs/mptcp-pm.1, from the command's own parser
	$(PYTHON) -m pm.cli.man > docs/mptcp-pm.1

clean: ## remove everything that make made
	$(AS_ROOT) rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/bench/results \
	    pm/web/vendor
	$(AS_ROOT) find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(1): packages. apt-get only where one is missing.
define install_missing
	@missing=$$(comm -23 <(printf '%s\n' $(1) | sort) \
	    <(dpkg-query -W -f='$${db:Status-Status} $${Package}\n' $(1) 2>/dev/null | sed -n 's/^installed //p' | sort)); \
	if [ -n "$$missing" ]; then \
	    $(AS_ROOT) apt-get update -q && \
	    $(AS_ROOT) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	fi
endef

packages:
	$(call install_missing,$(PACKAGES))

# The page's libraries, as pm/web/package-lock.json pins them.
web-libraries: | packages
	@pm/web/fetch

bench-packages:
	$(call install_missing,$(BENCH_PACKAGES))

$(PROMETHEUS): | packages
	@rm -rf build/prometheus build/prometheus.new && mkdir -p build/prometheus.new
	@cd build/prometheus.new && \
	    { apt-get download -q prometheus || { $(AS_ROOT) apt-get update -q && apt-get download -q prometheus; }; } && \
	    dpkg-deb --extract prometheus_*.deb . && rm prometheus_*.deb
	@mv build/prometheus.new build/prometheus

# The system's interpreter and packages: bcc is Debian's, for Debian's Python.
$(STAMP): pyproject.toml requirements-dev.txt | packages web-libraries
	/usr/bin/python3 -m venv --system-site-packages $(VENV)
	$(PIP) install --require-hashes --requirement requirements-dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/setup-* && touch $@

# axe-core looks at the page for what readers with a handicap cannot use; the lock file has its hash.
$(AXE): tests/browser/package-lock.json | packages
	@mkdir -p build/axe
	cp tests/browser/package.json tests/browser/package-lock.json build/axe
	npm ci --prefix build/axe --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
	@touch $@

build/bench/second_path.so: tests/bench/second_path.c | bench-packages
	@mkdir -p $(@D)
	gcc -Wall -Wextra -Werror -O2 -shared -fPIC -o $@ $< -lmptcpd
	chmod 755 $(@D) && chmod 644 $@
