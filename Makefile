# Thin: each target names the script that does it. `make demo` and `make test` are the two to start with.
SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin
ARCH ?= $(shell uname -m)

.PHONY: check-page check-sbom check-trivy check-grype demo test sim sim-faults soak mutants miri static rpm release vm selinux bench instructions scale fuzz lint check-packaging check-reproducible check-kube v0.1.0 oci help

help:
	@sed -n 's/^#: //p' Makefile

#: make demo      one guest, one sensor, three packages installed, upgraded and removed, with the times
demo:
	@packaging/install-deps.sh demo
	@echo "demo: building afferent"
	cargo build --locked
	python3 tests/demo.py $${CARGO_TARGET_DIR:-target}/debug/afferent

# Most tests of whole programs wait: twice as many threads as processors.
#: make test      installs what the tests need and passes them all; where QEMU is there, in real machines too (VM=no: not)
test:
	packaging/install-deps.sh test
	@$(MAKE) --no-print-directory v0.1.0 || \
		echo "test: without version 0.1.0; the tests that let it meet this one say 'skipped'"
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))} cargo test --locked
	@if [ "$(VM)" != no ] && command -v qemu-system-x86_64 >/dev/null; then $(MAKE) vm; else \
		echo "test: virtual machines were not started; make vm does it, and installs QEMU"; fi

#: make sim       agents, sensors and mirror in a simulated world, with fresh seeds for three minutes (SIM_SECONDS=N for longer)
SIM_SECONDS ?= 180
sim:
	SIM_SECONDS=$(SIM_SECONDS) cargo test --locked --profile sim --test sim -- --include-ignored --nocapture

#: make sim-faults   proves that the simulation finds the faults in tests/sim/faults; half an hour
sim-faults:
	tests/sim/faults.sh

#: make soak      real agents, sensor, nats-server and mirror under kills, outages and full disks for ten minutes (SECONDS_SOAK=N)
SECONDS_SOAK ?= 600
soak:
	packaging/install-deps.sh test nats
	cargo build --locked
	python3 tests/soak.py $${CARGO_TARGET_DIR:-target}/debug/afferent --seconds $(SECONDS_SOAK)

#: make mutants   300 random mutants of the pure modules (MUTANTS=N): at least 97 of 100 must be noticed
MUTANTS ?= 300
mutants:
	packaging/mutants.sh $(MUTANTS)

#: make miri      the unit tests of what parses bytes under Miri, where there is a nightly toolchain with it
miri:
	packaging/miri.sh

#: make static    the static binary, target/static/ARCH/afferent (ARCH=aarch64 for the other one)
static:
	packaging/build-static.sh $(ARCH)

#: make rpm       the RPM with that binary, in target/rpm
rpm:
	packaging/build-rpm.sh $(ARCH)

#: make release   binaries and RPMs of both architectures, checksums, SBOM, licences, in target/release-files; RELEASE_KEY signs
release:
	packaging/release.sh

#: make vm        real virtual machines with real VSOCK, the RPM installed in them; under 15 minutes
vm:
	packaging/install-deps.sh vm
	tests/vm/run.sh

#: make selinux   the same for one machine that enforces SELinux, with Debian's policy: no denial may be ours
selinux:
	packaging/install-deps.sh vm
	tests/vm/run.sh selinux

#: make bench     what is measured, see benches/
bench:
	cargo bench --locked

#: make scale     three nats-servers, four sensors, 10,000 simulated guests (SCALE_GUESTS=N), a consumer, and faults of each
NATS_PY := target/tools/nats-py
scale:
	packaging/install-deps.sh nats scale
	test -x $(NATS_PY)/bin/pip || python3 -m venv $(NATS_PY)
	$(NATS_PY)/bin/pip install --quiet --requirement packaging/examples/requirements.txt
	cargo bench --locked --bench scale

#: make instructions   instructions of pieces of work, by callgrind, beside those in benches/instructions.md (x86-64, valgrind)
instructions:
	@packaging/install-deps.sh instructions || true
	cargo bench --locked --profile sim --bench instructions

#: make fuzz      40 seconds for each fuzz target (SECONDS_EACH=N for longer)
fuzz:
	packaging/fuzz.sh $(SECONDS_EACH)

#: make lint      format, clippy, documentation, scripts, units, spec, alert rules
lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	packaging/lint.sh

#: make check-reproducible   builds the static binary again in another place and compares (ARCH=aarch64)
check-reproducible:
	packaging/check-reproducible.sh $(ARCH)

#: make check-kube   the tests that need a real kube-apiserver, with one built from source in target/kube (needs Go 1.26)
check-kube:
	tests/kube/check.sh target/kube

#: make v0.1.0    version 0.1.0, built from this repository's history: target/v0.1.0/afferent, which tests compare with
v0.1.0:
	packaging/build-old.sh

#: make check-packaging   installs, upgrades and erases the RPM in scratch roots; takes the OCI image apart
check-packaging:
	packaging/install-deps.sh packaging
	tests/packaging/run.sh
	packaging/oci/check.sh "$${PACKAGING_BINARY:-target/static/$$(uname -m)/afferent}"

#: make oci       the OCI image of the static binary, in target/afferent.oci.tar (OCI_ARGS="--ca FILE" and others)
oci: static
	packaging/oci/build.sh target/afferent.oci.tar $(OCI_ARGS)

#: make check-page   the pages in a headless Chromium, in front of a real sensor and a real mirror; skipped where there is none
check-page:
	packaging/install-deps.sh page || echo "check-page: without what could not be installed"
	cargo build --locked
	python3 -B tests/page/test_page.py $${CARGO_TARGET_DIR:-target}/debug/afferent
	python3 -B tests/page/test_mirror.py $${CARGO_TARGET_DIR:-target}/debug/afferent

#: make check-sbom   bills of materials of every database of the tests, judged by validators of others
check-sbom:
	tests/sbom/run.sh judges

#: make check-trivy   bills of materials of 17 systems, matched with advisories by Trivy's own packages
check-trivy:
	tests/sbom/run.sh trivy

#: make check-grype   the same by the real grype, built from source: ten minutes of a processor the first time
check-grype:
	tests/sbom/run.sh grype
