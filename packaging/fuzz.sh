#!/usr/bin/env bash
# Fuzzes every target in fuzz/ for 40 seconds each, or for $1 seconds each, one a processor at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin

if ! command -v rustup >/dev/null || ! rustup toolchain list | grep -q '^nightly'; then
    echo "fuzz: not run: cargo-fuzz needs a nightly toolchain (rustup toolchain install nightly)"
    exit 0
fi
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
log=target/fuzz.log
mkdir -p target
if ! fuzz/run.sh "${1:-40}" >"$log" 2>&1; then
    tail -60 "$log"
    echo "fuzz: something was found; its input is under fuzz/artifacts" >&2
    exit 1
fi
grep -E '^Done|stat::number_of_executed_units' "$log" || true
