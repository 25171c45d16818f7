#!/usr/bin/env bash
# Fuzzes targets for SECONDS each, seeded with the real databases of the tests.
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
for target in "${targets[@]}"; do
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=1024 -max_len=1500000 -print_final_stats=1
done
