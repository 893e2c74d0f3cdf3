# Herald's machinery. "make" alone lists what there is.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LOGS := .test-logs
comma := ,

# Programs are static. Every step compiles with the same settings, so that one
# finds in Go's cache what another has made; only -race is different.
export CGO_ENABLED := 0
export GOFLAGS := $(strip $(shell go env GOFLAGS) -trimpath -buildvcs=false)
export GOWORK := off
# nft, iptables and others are there on Debian, also when a shell leaves it out.
export PATH := $(PATH):/usr/sbin:/sbin

# End-to-end tests wait more than they work: so many clusters side by side.
E2E_PARTS ?= 3

GOTEST := go run ./hack/gotest -logs $(LOGS)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build Herald and its sandbox into bin/
	@mkdir -p bin
	@go build -ldflags '-s -w -X github.com/heraldlb/herald/version.version=$(VERSION)' -o bin/ ./cmd/...
	@go -C test/sandbox build -o ../../bin/ ./cmd/herald-sandbox

.PHONY: demo
demo: deps build ## Show Herald at work in a real cluster on this machine (KEEP=1 leaves it running)
	@hack/demo

.PHONY: test
test: ## Build and check everything: deps, lint, verify, tests, end-to-end tests
	@hack/test

.PHONY: test-unit
test-unit: ## Tests of the packages, with the race detector
	@CGO_ENABLED=1 $(GOTEST) -suite $@ -- -race -count=1 -timeout 15m ./...

.PHONY: test-sandbox
test-sandbox: build kubernetes ## Tests of the sandbox itself (root)
	@$(GOTEST) -suite $@ -dir test/sandbox -each -- -count=1 -timeout 20m ./...

.PHONY: test-e2e
test-e2e: build kubernetes ## End-to-end tests in the sandbox (root)
ifneq ($(wildcard test/e2e/go.mod),)
	@E2E_LOGS=$(CURDIR)/$(LOGS)/herald $(GOTEST) -suite $@ -dir test/e2e -parts $(E2E_PARTS) -each -- -count=1 -timeout 60m ./...
else
	@echo "skipped: there is no test/e2e"
endif

.PHONY: test-rights
test-rights: build kubernetes ## Take each right of Herald's Roles away in turn and see what fails without it; not part of test (root; RIGHTS=part of their text)
	@RIGHTS='$(RIGHTS)' go -C test/e2e test -tags rights -run TestEachRightIsNeeded -count=1 -v -timeout 60m ./rights

.PHONY: kubernetes
kubernetes: build ## Build the sandbox's Kubernetes into the cache, once
	@bin/herald-sandbox build 2>&1 >/dev/null | awk '!/packages compiled/ || ++n % 6 == 0 { print; fflush() }'

.PHONY: lint
lint: ## gofmt, go vet and golangci-lint, and who imports whom
	@hack/lint

.PHONY: verify
verify: build ## Fail if generated files, go.mod or go.sum are not what they should be
	@hack/verify

.PHONY: generate
generate: build ## Write generated code, CRDs and docs/reference anew
	@hack/generate .

.PHONY: bench
bench: build kubernetes ## Benchmarks: packages, and a storm of Services in a cluster (root; SERVICES=1000,3000)
	@go test -run '^$$' -bench . -benchmem ./...
	@go -C test/e2e run ./bench -services $(or $(SERVICES),1000$(comma)3000)

.PHONY: bench-failover
bench-failover: ## What failures cost clients, case by case (root; ROUNDS=20 CASES=power-loss,drain SPEAKER_ARGS=… REALTIME=1)
	@$(MAKE) --no-print-directory kubernetes >&2
	@go -C test/e2e run ./bench/failover -rounds '$(or $(ROUNDS),20)' -cases '$(CASES)' -speaker-args '$(SPEAKER_ARGS)' $(if $(REALTIME),-realtime) -logs $(CURDIR)/$(LOGS)/bench-failover

.PHONY: bench-bgp
bench-bgp: ## What BGP costs: many routes to a router, and failures (root; ROUTES=1000,10000 ROUNDS=20 CASES=converge,bgp-drain)
	@$(MAKE) --no-print-directory kubernetes >&2
	@go -C test/e2e run ./bench/bgp -routes '$(or $(ROUTES),1000$(comma)10000$(comma)100000)' -rounds '$(or $(ROUNDS),20)' -cases '$(CASES)' -speaker-args '$(SPEAKER_ARGS)' $(if $(REALTIME),-realtime) -logs $(CURDIR)/$(LOGS)/bench-bgp

.PHONY: bench-aws
bench-aws: ## What load balancers in AWS cost in calls, against moto (root; SERVICES=50)
	@$(MAKE) --no-print-directory kubernetes >&2
	@go -C test/e2e run ./bench/aws -services '$(or $(SERVICES),50)' -logs $(CURDIR)/$(LOGS)/bench-aws

.PHONY: vuln
vuln: ## Look for known vulnerabilities in what is called
	@hack/vuln

.PHONY: deps
deps: ## Install the Debian packages that are missing (root)
	@hack/deps

.PHONY: deps-test
deps-test: ## As deps, with what the tests need: a C compiler, FRR and BIRD
	@hack/deps test

.PHONY: clean
clean: ## Remove what was built here; caches stay
	@rm -rf bin $(LOGS)
