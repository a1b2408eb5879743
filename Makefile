# What can be done here: make help
#
# All of it works with cargo alone too; this only remembers the commands.

CARGO = cargo

build: ## build target/release/xget
	$(CARGO) build --release --locked

node: ## build it as for an initramfs: fetching and serving on, but no master
	$(CARGO) build --release --locked --no-default-features --target-dir "$${CARGO_TARGET_DIR:-target}/node"

static: ## build target/static/xget and xget-node (no master), fully static; see docs/static.md
	CARGO="$(CARGO)" static/build

static-check: ## as root: prove that they are static and small, and work where nothing else is
	tests/static.sh

demo: build ## put a kernel and an initrd onto five nodes of this machine, and show who sent what
	demo/demo.sh

test: build ## run every test; as root on Debian it installs what it needs
	tests/run

bench: build ## measure it beside other tools, as root (QUICK=1: about two minutes); see docs/benchmarks.md
	bench/run $(if $(QUICK),--quick)

lint: ## check the format and run clippy, for both sets of features
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings

clean: ## remove what was built, and what the tests have downloaded
	$(CARGO) clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: build node static static-check demo test bench lint clean help
