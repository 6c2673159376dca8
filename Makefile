# The front door: every target calls cargo, a script or the runner; `make` alone lists them.
export PATH := /usr/bin:$(PATH)
export SCRIPT FILES OUT CLOCK MEM TIMEOUT ONLY

RUNNER := target/release/zooid-runner

.PHONY: help setup build dom0 clean

help:          ## This list
	@sed -n 's/^\([a-z0-9-]*:\)[^#]*## /\1\t/p' Makefile | expand -t 14

setup:         ## Install what is missing, unpack Xen and dom0 below build/ (as root, Debian 12)
	@tests/dom0/setup

build: setup   ## Build the guest images and the runner
	@cargo build --quiet --release --package zooid-runner

dom0: build    ## Run a script in dom0: SCRIPT=f.sh [FILES="a b"] [OUT=dir] [CLOCK=wall|icount] [MEM=MiB] [TIMEOUT=s]
	@$(RUNNER) dom0

clean:         ## Remove everything that was built or unpacked
	rm -rf build target
