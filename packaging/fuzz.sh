#!/usr/bin/env bash
# Fuzzes every target in fuzz/ for a minute each, or for $1 seconds each.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin
seconds=${1:-60}

[ -f fuzz/Cargo.toml ] || { echo "fuzz: there is no fuzz/ yet"; exit 0; }
if ! command -v rustup >/dev/null || ! rustup toolchain list | grep -q '^nightly'; then
    echo "fuzz: not run: cargo-fuzz needs a nightly toolchain (rustup toolchain install nightly)"
    exit 0
fi
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
log=target/fuzz.log
mkdir -p target
for target in $(cargo +nightly fuzz list); do
    echo "fuzz: $target, $seconds s"
    if ! cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -rss_limit_mb=2048 >"$log" 2>&1; then
        tail -50 "$log"
        echo "fuzz: $target found something; its input is under fuzz/artifacts/$target" >&2
        exit 1
    fi
    grep -E 'DONE|^Done' "$log" | tail -1
done
