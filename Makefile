# What can be done here: make help
#
# All of it works with cargo alone too; this only remembers the commands.

CARGO = cargo
PREFIX = /usr/local
TARGET = $${CARGO_TARGET_DIR:-target}
# What is installed, and by what the completions are printed: another one where that one cannot run here.
PROGRAM = $(TARGET)/release/xget
NODE_PROGRAM = $(TARGET)/static/xget-node
PRINTER = $(PROGRAM)
UNITS = $(PREFIX)/lib/systemd/system
ZSH_FUNCTIONS = $(PREFIX)/share/zsh/site-functions
DOCS = $(PREFIX)/share/doc/xget

build: ## build target/release/xget
	$(CARGO) build --release --locked

node: ## build it as for an initramfs: fetching and serving on, but no master
	$(CARGO) build --release --locked --no-default-features --target-dir "$${CARGO_TARGET_DIR:-target}/node"

static: ## build target/static/xget and xget-node (no master), fully static; see docs/static.md
	CARGO="$(CARGO)" static/build

static-check: ## as root: prove that they are static and small, and work where nothing else is
	tests/static.sh

install: install-completions ## after make: install xget, manual pages, units, completions below DESTDIR and PREFIX (/usr/local)
	install -D "$(PROGRAM)" "$(DESTDIR)$(PREFIX)/bin/xget"
	install -D -m 644 docs/xget.1 "$(DESTDIR)$(PREFIX)/share/man/man1/xget.1"
	install -D -m 644 docs/xget.cmdline.7 "$(DESTDIR)$(PREFIX)/share/man/man7/xget.cmdline.7"
	for unit in xget.service xget-master.service xget-master.socket; do \
		install -D -m 644 /dev/null "$(DESTDIR)$(UNITS)/$$unit" && \
		sed 's|/usr/bin/|$(PREFIX)/bin/|' "initramfs/systemd/$$unit" > "$(DESTDIR)$(UNITS)/$$unit" || exit; \
	done

install-completions: ## after make: install only what completes its options in bash, zsh and fish
	$(call completion,bash,$(PREFIX)/share/bash-completion/completions/xget)
	$(call completion,zsh,$(ZSH_FUNCTIONS)/_xget)
	$(call completion,fish,$(PREFIX)/share/fish/vendor_completions.d/xget.fish)

# completion SHELL,FILE
completion = install -D -m 644 /dev/null "$(DESTDIR)$(2)" && "$(PRINTER)" --completions $(1) > "$(DESTDIR)$(2)"

install-docs: ## install the documentation below DESTDIR and PREFIX
	install -D -m 644 -t "$(DESTDIR)$(DOCS)" README.md
	cd docs && find . -name '*.md' -exec install -D -m 644 {} "$(DESTDIR)$(DOCS)/docs/{}" \;

install-node: ## after make static: install the static node, which an initramfs holds, as xget-node
	install -D "$(NODE_PROGRAM)" "$(DESTDIR)$(PREFIX)/bin/xget-node"

install-static: ## after make static: install both static programs, with all that install does
	$(MAKE) install install-node PROGRAM="$(TARGET)/static/xget"

install-dracut: ## install the dracut module below DESTDIR
	install -D -t "$(DESTDIR)/usr/lib/dracut/modules.d/50xget" dracut-module/50xget/*.sh

install-mkinitcpio: ## install the hooks xget and sd-xget of mkinitcpio below DESTDIR
	install -D -m 644 -t "$(DESTDIR)/usr/lib/initcpio/install" initramfs/mkinitcpio/install/*
	install -D -m 644 -t "$(DESTDIR)/usr/lib/initcpio/hooks" initramfs/mkinitcpio/hooks/*
	install -D -t "$(DESTDIR)/usr/lib/initcpio/xget" initramfs/mkinitcpio/xget/*

install-initramfs-tools: ## install the hook and the script of initramfs-tools below DESTDIR
	install -D initramfs/initramfs-tools/hooks/xget "$(DESTDIR)/usr/share/initramfs-tools/hooks/xget"
	install -D initramfs/initramfs-tools/scripts/xget "$(DESTDIR)/usr/share/initramfs-tools/scripts/xget"

deb: static ## build Debian packages of the static programs in target/packages; see docs/packages.md
	packaging/deb

dist: ## pack the source of the last commit, for packaging/xget.spec and packaging/PKGBUILD, into target/packages
	packaging/dist

demo: build ## put a kernel and an initrd onto five nodes of this machine, and show who sent what
	demo/demo.sh

# XGET=/usr/local/bin/xget takes that one in place of one that is built.
lab: $(if $(XGET),,build) ## as root: a master and N=8 nodes in namespaces here, RATE=100 Mbit/s, DELAY=, SIZE=, SECONDS=; docs/lab.md
	lab/net $(lab_options)

vm-lab: $(if $(XGET),,build) ## as root: a master and N=2 machines in QEMU, RATE=, SIZE=, SECONDS=; docs/lab.md
	lab/vm $(lab_options)

lab_options = $(if $(N),-n $(N)) $(if $(RATE),--rate $(RATE)) $(if $(DELAY),--delay $(DELAY)) \
	$(if $(SIZE),--size $(SIZE)) $(if $(SECONDS),--seconds $(SECONDS))

check: lint ## after an edit: the format, clippy, and the library's tests
	$(CARGO) test --locked --lib -- --skip sim::tests

test: ## run the tests: cargo's, and one real case of each kind; as root on Debian it installs what it needs
	tests/run quick

test-all: ## run every test
	tests/run all

bench: build ## measure it beside other tools, as root (QUICK=1: about two minutes); see docs/benchmarks.md
	bench/run $(if $(QUICK),--quick)

lint: ## check the format and run clippy, for the simulator too
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets --features simulator -- -D warnings

lint-node: ## run clippy for the node's set of features
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings

fuzz: ## give each fuzz target SECONDS (60) of any bytes; see docs/testing.md
	fuzz/run $(SECONDS)

sanitize: ## run the library's tests under the address and the thread sanitizer; see docs/testing.md
	tests/sanitize

clean: ## remove what was built, and what the tests have downloaded
	$(CARGO) clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-24s %s\n", $$1, $$2 }' Makefile

.PHONY: build node static static-check install install-completions install-docs install-node install-static install-dracut
.PHONY: install-mkinitcpio install-initramfs-tools deb dist demo lab vm-lab check test test-all bench lint lint-node fuzz sanitize clean
.PHONY: help
