#!/usr/bin/env bash
# Fuzzes targets for SECONDS each, as many at a time as there are processors, seeded with the real databases of the
# tests. What a target prints comes when it ended.
# Usage: fuzz/run.sh SECONDS [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?seconds}; shift
targets=("$@"); [ $# -gt 0 ] || targets=(header ndb bdb wal sqlite wire cpe nats roster core mapping jetstream control kube_list websocket)
fixtures=tests/fixtures/rpmdb
seed() { # target fixture file
    mkdir -p "fuzz/corpus/$1"
    xz -dc "$fixtures/$2/$3.xz" > "fuzz/corpus/$1/$2"
}
seed ndb sle-15-subset-ndb Packages.db
seed ndb sle-15-bci-ndb Packages.db
seed bdb epoch-one-package-bdb Packages
seed bdb rhel-8-libuuid-bdb Packages
seed bdb centos-6-subset-bdb Packages
seed sqlite no-packages-table-sqlite rpmdb.sqlite
seed sqlite rpm-testsuite-pubkey-sqlite rpmdb.sqlite
seed sqlite fedora-33-subset-sqlite rpmdb.sqlite
seed wal amazonlinux-2023-walpending-sqlite rpmdb.sqlite-wal
cp fuzz/seeds/small.sqlite fuzz/corpus/sqlite/
mkdir -p fuzz/corpus/header && cp fuzz/seeds/*.header fuzz/corpus/header/
mkdir -p fuzz/corpus/wire && cp fuzz/seeds/*.wire fuzz/corpus/wire/
for kind in roster core mapping jetstream control; do
    mkdir -p "fuzz/corpus/$kind" && cp "fuzz/seeds/$kind"/* "fuzz/corpus/$kind/"
done
mkdir -p fuzz/corpus/cpe && cp fuzz/seeds/*.cpe fuzz/corpus/cpe/
mkdir -p fuzz/corpus/nats && cp fuzz/seeds/*.nats fuzz/corpus/nats/
# All at once: each `run` would wait for the build of the one before it.
cargo +nightly fuzz build
fuzz() { # seconds target
    local log result=0
    log=$(mktemp)
    cargo +nightly fuzz run "$2" -- -max_total_time="$1" -timeout=10 \
        -rss_limit_mb=1024 -max_len=1500000 -print_final_stats=1 >"$log" 2>&1 || result=$?
    echo "=== $2"
    cat "$log"
    rm "$log"
    # What xargs gives up at: the targets behind a finding are not begun.
    [ $result = 0 ] || exit 255
}
export -f fuzz
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz "$@"' _ "$seconds" {}
