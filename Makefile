# The one command surface: people and CI call the same targets. Each installs what it is missing by Debian
# package name, starts its own servers on free loopback ports and private folders, and leaves nothing behind.
.PHONY: help demo demo-ceph build test test-vm chaos lint bench bench-vm fuzz

help: ## shows this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: ## the suite on this machine: a container writes, another reads
	scripts/demo

demo-ceph: ## the same on a real etcd and a real Ceph
	scripts/demo --ceph

build: ## release binaries in target/release
	scripts/install build
	cargo build --release --bins

lint: ## formatting, clippy, and what looks at scripts, units and the Vagrantfile
	scripts/install build vagrant
	scripts/lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings

test: ## everything, with real dockerd, etcd and Ceph
	scripts/install all
	scripts/test

test-vm: ## the kernel's rbd, on an emulated host with a kernel of its own
	scripts/install all vm
	scripts/test-vm

chaos: ## 500 faults, drawn from SEED (N=… for another number, FROM=… to go on), and nothing may be lost
	scripts/install all
	scripts/chaos "$(SEED)" "$(N)" "$(FROM)"

bench: ## the figures, beside their baselines
	scripts/install all
	scripts/bench

bench-vm: ## the figures of the kernel's rbd, on an emulated host
	scripts/install all vm
	scripts/bench kernel

fuzz: ## a minute of fuzzing for each parser (needs a nightly toolchain and cargo-fuzz)
	scripts/fuzz
