# The commands of the project; `make help` lists them. Go and make are enough to
# build, test and run the demo. The linters are fetched through the Go module proxy.

GO          ?= go
# The linters' versions are fixed, so that a new release of one breaks nobody's build.
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
DEADCODE    ?= golang.org/x/tools/cmd/deadcode@v0.52.0
# How long `make fuzz` spends on each target.
FUZZTIME    ?= 10s

# Static binaries: no C library, no paths of the machine that built them, no symbols.
GOBUILD = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w"

.DEFAULT_GOAL := help
.PHONY: help build test lint deadcode fuzz histories failures bench demo demo-stop docs clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

build: ## build bin/incusd and bin/incus
	$(GOBUILD) -o bin/ ./cmd/incusd ./cmd/incus

test: build ## run all tests
	scripts/test-tools
	GO="$(GO)" INCUS_BIN_DIR="$(CURDIR)/bin" scripts/test

lint: ## go vet, gofmt and staticcheck
	$(GO) vet ./...
	@unformatted=$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...)); \
	if [ -n "$$unformatted" ]; then echo "gofmt -w is due for:"; echo "$$unformatted"; exit 1; fi
	$(GO) run $(STATICCHECK) ./...

deadcode: ## name functions that nothing reaches
	$(GO) run $(DEADCODE) -test ./...

fuzz: ## fuzz each target for FUZZTIME (10s)
	GO="$(GO)" FUZZTIME="$(FUZZTIME)" scripts/fuzz

histories: build ## check histories under faults that no run has had yet
	INCUS_BIN_DIR="$(CURDIR)/bin" HISTORIES_SEED=$$(date +%s) HISTORIES_RUNS=20 $(GO) test ./test/histories -count=1 -v -timeout 30m

failures: ## let one and two members fail at every step, in clusters of every size; takes hours
	FAILURES_EVERY=$${FAILURES_EVERY:-1} $(GO) test ./internal/clustertest -run TestEveryFailureAtEachStep -count=1 -timeout 24h

bench: build ## measure a cluster of three processes; prints a table
	$(GO) run ./test/bench -bin bin $(BENCHFLAGS)

demo: build ## start three servers that form a cluster
	scripts/demo start

demo-stop: ## end the demo's servers and remove their data
	scripts/demo stop

docs: ## write docs/configuration.md anew from the schema
	$(GO) test ./internal/config -run TestConfigurationReferenceIsCurrent -update

clean: demo-stop ## remove what was built, and the demo
	rm -rf bin
	$(GO) clean -testcache
