# spillway: the commands of the README. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release/spillway

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: demo
demo: release ## a storm without and with spillway, on this machine, no cluster needed (about 90 s)
	@$(RELEASE) demo

.PHONY: test
test: ## everything that CI checks; installs what it needs
	@tests/run.sh

.PHONY: cluster
cluster: ## a real control plane with 10 kubelets behind spillway, until Ctrl-C
	@$(CARGO) build --release --locked --bin spillway --example cluster
	@SPILLWAY_CLUSTER_BIN=$$(tests/cluster/build.sh) $(dir $(RELEASE))examples/cluster

.PHONY: soak
soak: ## storms on a real kube-apiserver, direct and through spillway; SCENES="list watch" MODES=spillway OUT=DIR
	@$(CARGO) build --release --locked --bin spillway --example soak
	@SPILLWAY_BIN=$${SPILLWAY_BIN:-$(RELEASE)} SPILLWAY_CLUSTER_BIN=$$(tests/cluster/build.sh) \
	  $(dir $(RELEASE))examples/soak $(if $(SCENES),--scenes "$(SCENES)") $(if $(MODES),--modes "$(MODES)") \
	  --out $(or $(OUT),target/soak) $(SOAK)

.PHONY: overload-report
overload-report: release ## compares every algorithm in every scenario and writes docs/OVERLOAD.md (about 20 minutes)
	@$(RELEASE) simulate --report docs

.PHONY: fuzz
fuzz: ## looks for inputs that misbehave, every target in turn; MINUTES=20 in all, TARGETS="query token"
	@MINUTES=$(or $(MINUTES),20) fuzz/run.sh $(TARGETS)

.PHONY: bench
bench: release ## decision, classification and end to end beside HAProxy, nghttpx and Envoy
	@benches/run.sh

.PHONY: neighbours
neighbours: ## what others notice of abuse, and of TokenReviews that hang, as tables; ONLY="ping" ROUNDS=4 MS=1000 (about 5 minutes)
	@NEIGHBOURS_ONLY="$(ONLY)" NEIGHBOURS_ROUNDS=$(or $(ROUNDS),4) NEIGHBOURS_MS=$(or $(MS),1000) \
	  $(CARGO) test --release --locked --test neighbours -- --test-threads=1 --nocapture

.PHONY: release
release: ## the optimised binary
	@$(CARGO) build --release --locked --bin spillway

.PHONY: fmt
fmt: ## format the code
	@$(CARGO) fmt

.PHONY: clean
clean: ## remove build output (the cluster's programs stay in the user's cache)
	@$(CARGO) clean
