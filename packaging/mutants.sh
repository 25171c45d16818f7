#!/usr/bin/env bash
# Mutation testing of the pure modules: each mutant that neither the unit tests nor the simulation notice is printed.
#
#   packaging/mutants.sh [NUMBER [SEED]]     a random sample of so many mutants (300)
#   packaging/mutants.sh --in-diff FILE      the mutants of what a diff changes
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
PATH=$PATH:$HOME/.cargo/bin:$root/target/tools/bin

cargo mutants --version >/dev/null 2>&1 || cargo install cargo-mutants --locked --root "$root/target/tools"

# Modules that decide, or translate bytes, and touch nothing else.
pure=(
    src/sense/queue/{queue,policy,slot,rings,budgets,rate_limit,settlement,state}.rs
    src/sense/pull/{schedule,answer}.rs
    src/sense/deliver/{breaker,outcome}.rs
    src/serve/{rescan,respond,renewal}.rs
    src/clock/{backoff,token_bucket}.rs
    src/report/{evr,diff,token,digest,envelope}.rs
    src/mirror/plan/{guard,reconcile,rack,component,bmc,names}.rs
    src/wire/{fields,frame,meta,request,response,convert,document}.rs
)
select=()
for file in "${pure[@]}"; do
    [ ! -e "$file" ] || select+=(--file "$file")
done
out=$root/target/mutants
mkdir -p "$out"
if [ "${1:-}" = --in-diff ]; then
    select+=(--in-diff "$2")
else
    number=${1:-300} seed=${2:-$RANDOM}
    cargo mutants --list --line-col=true "${select[@]}" >"$out/all"
    shuf --random-source=<(yes "$seed") -n "$number" "$out/all" >"$out/sample"
    echo "mutants: $(wc -l <"$out/sample") of $(wc -l <"$out/all"), seed $seed"
    while IFS= read -r name; do
        # The name as it is, as a regular expression.
        select+=(--re "^$(printf '%s' "$name" | sed 's/[][(){}.*+?^$|\\]/\\&/g')\$")
    done <"$out/sample"
fi
# The simulation with few seeds: what they find is found in seconds, see tests/sim/faults.
export SIM_SECONDS=${SIM_SECONDS:-5} SIM_SHRINK=0 PROPTEST_CASES=${PROPTEST_CASES:-64}
cargo mutants "${select[@]}" --output "$out" --no-shuffle --timeout 600 --build-timeout 1200 --baseline skip \
    --colors never -- --locked --lib --test sim || true
missed=$out/mutants.out/missed.txt
caught=$(wc -l <"$out/mutants.out/caught.txt") 
count=$(wc -l <"$missed")
echo "mutants: $caught caught, $count missed, $(wc -l <"$out/mutants.out/unviable.txt") did not compile"
cat "$missed"
# 97 of 100 must be caught.
[ $((100 * count)) -le $((3 * (caught + count))) ]
