#!/usr/bin/env bash
# Runs the unit tests of what parses bytes under Miri, which finds undefined behaviour: in this crate `unsafe` is denied,
# so it could only come from libraries that are used wrongly. Usage: packaging/miri.sh [FILTER...]
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "miri: not run: there is no Miri here (rustup component add --toolchain nightly miri rust-src)"
    exit 0
fi
# Files, the time of day and random numbers are those of this machine; a property is tried with few inputs, since
# everything is a hundred times slower.
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance" PROPTEST_CASES=${PROPTEST_CASES:-4} CARGO_TARGET_DIR=target/miri
filters=("$@")
[ ${#filters[@]} -gt 0 ] || filters=(wire::frame wire::fields wire::meta wire::request wire::response rpmdb::header
    report::token report::cpe report::escape visible:: nats::protocol transport::certificate sense::queue::queue
    serve::rescan clock::)
cargo +nightly miri test --locked --lib -- "${filters[@]}"
