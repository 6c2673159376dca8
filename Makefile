# The front door: every target calls cargo, a script or the runner; `make` alone lists them.
export PATH := /usr/bin:$(PATH)
export SCRIPT FILES OUT CLOCK MEM CPU CPUS TIMEOUT ONLY SECONDS_EACH FORKS

# Crates that run on the build machine, where their unit tests are run.
HOST_CRATES := httpd-core xen-abi xen-sys zooid-core zooid-crt zooid-fork-core zooid-fork-plan zooid-ipc zooid-loader zooid-manifest zooid-memory zooid-net zooid-runner xenctl pvm
EXAMPLES := $(notdir $(wildcard examples/*))
RUNNER := target/debug/zooid-runner
QUIET := --quiet
# The guests that `make run` shows.
SHOWN := httpd workers page_server

# dom0's tools, and the runner.
define BUILD_TOOLS
@cargo build $(QUIET) --profile dom0 --package xenctl --package pvm
@cargo build $(QUIET) --package zooid-runner
endef

.PHONY: help setup build images run test unit boot-test scale check shell dom0 bench soak fuzz install clean

help:      ## This list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## /\1\t/p' Makefile | expand -t 12

setup:     ## Install what is missing, unpack Xen and dom0 below build/ (as root, Debian 12)
	@tests/dom0/setup
	@tests/setup

build: QUIET :=
build: images ## Build the guest images and print their sizes
	@$(RUNNER) images

run: QUIET :=
run: ## Show the main job: boot Xen, start a web server as a guest, fetch pages, shut it down
	@tests/dom0/setup
	@cargo build $(QUIET) --release --target x86_64-xen-pv $(SHOWN:%=--bin %)
	$(BUILD_TOOLS)
	@$(RUNNER) run

test: QUIET :=
test: images ## Run the tests, of the long ones a third by turns; the last line is `N passed, N failed`: [ONLY=name]
	@$(RUNNER) test --turns $(HOST_CRATES:%=--unit %)

unit: images ## Run the unit tests of the host crates: [ONLY=name]
	@$(RUNNER) test --no-boot $(HOST_CRATES:%=--unit %)

boot-test: images ## Run all tests that boot guests under Xen: [ONLY=name] [CLOCK=wall|icount] [MEM=MiB] [CPUS=1|2|4] [CPU=qemu64|Haswell-noTSX]
	@$(RUNNER) test

scale: images ## Run the boot tests that have larger numbers with these: [ONLY=name] [CPUS=1|2|4]
	@$(RUNNER) test --scale

check: setup ## Check format, lints, shell scripts and the tree
	@tests/check $(HOST_CRATES)

shell: images ## Give an interactive dom0 prompt: [CLOCK=wall|icount] [MEM=MiB] [CPUS=1|2|4] [CPU=qemu64|Haswell-noTSX]
	@$(RUNNER) shell

dom0: images ## Run a script in dom0: SCRIPT=f.sh [FILES="a b"] [OUT=dir] [CLOCK=wall|icount] [MEM=MiB] [CPUS=1|2|4] [CPU=qemu64|Haswell-noTSX] [TIMEOUT=s]
	@$(RUNNER) dom0

bench: images ## Measure ours beside others in the same boot, write target/bench.json: [ONLY=name] [MEM=MiB]
	@tests/bench/setup
	@$(RUNNER) bench

soak: images ## Fork, update and kill the daemon for hours, and see that nothing is left: [FORKS=n] [SECONDS_EACH=3600] [CPUS=1|2|4]
	@$(RUNNER) soak

fuzz: setup ## Fuzz the parsers of what strangers write: [ONLY=name] [SECONDS_EACH=60]
	@fuzz/run

install: images ## Install pvm, pvmd and the example guests on a Xen host: [DESTDIR=dir]
	@install -D -m 644 -t $(DESTDIR)/opt/zooid/guests $(EXAMPLES:%=target/x86_64-xen-pv/release/%) $(wildcard examples/*/*.cfg)
	@install -D -t $(DESTDIR)/usr/bin target/dom0/pvm
	@install -D -t $(DESTDIR)/usr/sbin target/dom0/pvmd
	@install -D -m 644 -t $(DESTDIR)/lib/systemd/system toolstack/pvm/systemd/pvmd.service
	@target/dom0/pvm generate man target/man
	@install -D -m 644 -t $(DESTDIR)/usr/share/man/man1 target/man/*.1
	@install -D -m 644 -t $(DESTDIR)/usr/share/man/man8 target/man/*.8
	@target/dom0/pvm generate completions target/completions
	@install -D -m 644 -T target/completions/pvm.bash $(DESTDIR)/usr/share/bash-completion/completions/pvm
	@install -D -m 644 -T target/completions/pvmd.bash $(DESTDIR)/usr/share/bash-completion/completions/pvmd
	@install -D -m 644 -t $(DESTDIR)/usr/share/zsh/vendor-completions target/completions/_pvm target/completions/_pvmd
	@install -D -m 644 -t $(DESTDIR)/usr/share/fish/vendor_completions.d target/completions/pvm.fish target/completions/pvmd.fish

clean:     ## Remove everything that was built or unpacked
	rm -rf build target

images: setup
	@cargo build $(QUIET) --release --target x86_64-xen-pv
	$(BUILD_TOOLS)
