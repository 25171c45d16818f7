#!/bin/bash
# The contract of the tests and the whole way of a guest, against a real kube-apiserver: builds it where it is not built
# yet (Go 1.26 and python3-yaml; six minutes), starts it on loopback, and stops it. Usage: check.sh DIR
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "$1"; dir=$(cd "$1" && pwd)
# What was built is kept for as long as nothing that it is made of changes.
key=$(cat tests/kube/peer.sh tests/kube/virtapi.go tests/kube/crds.py tests/kube/go.mod | sha256sum)
if [ "$(cat "$dir/key" 2>/dev/null || true)" != "$key" ]; then
    tests/kube/peer.sh build "$dir"
    echo "$key" > "$dir/key"
fi
trap 'tests/kube/peer.sh down "$dir"' EXIT
tests/kube/peer.sh up "$dir"
AFFERENT_KUBE_PEER=$dir AFFERENT_KUBE_SERVER=https://127.0.0.1:${API_PORT:-6443} \
    cargo test --locked --test it -- real_kube_apiserver a_missing_right
tests/kube/manifests.sh "$dir" "${CARGO_TARGET_DIR:-target}/debug/afferent"
