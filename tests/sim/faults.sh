#!/usr/bin/env bash
# Proof that the simulation finds faults: each patch in tests/sim/faults/ puts one back, and fresh seeds must
# fail within a minute of a processor. Works on a copy of the last commit in target/sim-faults. With names of faults, only these.
# `tests/sim/faults.sh --search NAME...`: the exhaustive search of the smallest core must find them.
set -euo pipefail
cd "$(dirname "$0")/../.."
patches=$PWD/tests/sim/faults
tree=$PWD/target/sim-faults
export CARGO_TARGET_DIR=$PWD/target/sim-faults-target SIM_SECONDS=60 SIM_SHRINK=0 RUST_BACKTRACE=0
filter=fresh
if [ "${1:-}" = --search ]; then
    filter=every_order
    export SIM_SEARCH_SECONDS=60
    shift
fi
profile=(--profile "${SIM_PROFILE:-sim}")

git worktree remove --force "$tree" 2>/dev/null || true
git worktree add --quiet --detach "$tree" HEAD
trap 'git worktree remove --force "$tree"' EXIT
cd "$tree"

missed=0
for patch in "$patches"/*.patch; do
    name=$(basename "$patch" .patch)
    if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
    git apply -C1 "$patch" || { echo "$name: the patch does not apply any more"; missed=1; continue; }
    cargo test --locked --quiet "${profile[@]}" --test sim --no-run
    if cargo test --locked --quiet "${profile[@]}" --test sim "$filter" >"$CARGO_TARGET_DIR/$name.log" 2>&1; then
        echo "$name: not found in $SIM_SECONDS s"
        missed=1
    else
        after=$(sed -n 's/.* failed after \([0-9.]*[mn]\?s\).*/\1/p' "$CARGO_TARGET_DIR/$name.log" | head -1)
        found=$(grep -o 'invariant [0-9][0-9]*' "$CARGO_TARGET_DIR/$name.log" | head -1)
        echo "$name: found in ${after:-?}, ${found:-a panic}"
    fi
    git checkout --quiet -- .
done
exit $missed
