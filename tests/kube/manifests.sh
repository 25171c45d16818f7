#!/bin/bash
# The manifests of packaging/kubernetes against the API server that peer.sh runs in DIR: every object is accepted, and a sensor
# with exactly the rights of its service account finds and asks guests; with one right less it says which.
# Usage: manifests.sh DIR AFFERENT
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$1 afferent=$2
server=https://127.0.0.1:${API_PORT:-6443}
if ! command -v kubectl >/dev/null; then echo "manifests: skipped, there is no kubectl"; exit 0; fi
kubectl() { command kubectl --server="$server" --certificate-authority="$dir/pki/ca.crt" --token=admin-token "$@"; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() { echo "manifests: $*" >&2; exit 1; }

kubectl apply -f packaging/kubernetes/base/namespace.yaml >/dev/null
for way in api node; do
    command kubectl kustomize "packaging/kubernetes/$way" | kubectl apply --dry-run=server -f - >"$scratch/$way"
    grep -c '(server dry run)' "$scratch/$way" | sed "s/\$/ objects of $way accepted/"
done
kubectl apply --dry-run=server -n afferent -f packaging/kubernetes/guests/virtualmachine.yaml

# The rights, for real.
command kubectl kustomize packaging/kubernetes/api >"$scratch/all.yaml"
python3 - "$scratch" <<'END'
import sys, yaml
scratch = sys.argv[1]
objects = [o for o in yaml.safe_load_all(open(f"{scratch}/all.yaml")) if "Role" in o["kind"] or o["kind"] == "ServiceAccount"]
yaml.safe_dump_all(objects, open(f"{scratch}/rights.yaml", "w"))
END
kubectl apply -f "$scratch/rights.yaml" >/dev/null
token=$(kubectl create token afferent-sense --namespace afferent)
cat >"$scratch/kubeconfig" <<END
apiVersion: v1
kind: Config
current-context: it
contexts: [{name: it, context: {cluster: it, user: it}}]
clusters: [{name: it, cluster: {server: "$server", certificate-authority: "$(realpath "$dir")/pki/ca.crt"}}]
users: [{name: it, user: {token: "$token"}}]
END

# Runs a sensor until its log has a line, and prints that line.
until_said() { # regular expression, more arguments of the sensor
    rm -rf "$scratch/state"
    : >"$scratch/log"
    AFFERENT_LOG=debug "$afferent" sense --discover kubevirt --kube-cluster it --kubeconfig "$scratch/kubeconfig" \
        --deliver "file:$scratch/out" --state-dir "$scratch/state" "${@:2}" >"$scratch/log" 2>&1 &
    local sensor=$!
    for _ in $(seq 300); do
        if grep -Eq "$1" "$scratch/log"; then break; fi
        kill -0 $sensor 2>/dev/null || break
        sleep 0.2
    done
    kill $sensor 2>/dev/null || true
    wait $sensor 2>/dev/null || true
    grep -Em1 "$1" "$scratch/log" || { cat "$scratch/log"; fail "the sensor does not say '$1'"; }
}

kubectl apply -n afferent -f - >/dev/null <<'END'
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: guest, labels: {kubevirt.io/nodeName: n1}}
spec: {domain: {devices: {autoattachVSOCK: true}}}
status: {phase: Running, VSOCKCID: 1000, nodeName: n1}
END
until_said "roster guests=1"
if grep -Eqi 'forbidden|cannot' "$scratch/log"; then cat "$scratch/log"; fail "the rights of the manifests are too few"; fi

# One right less each, and what the sensor says of it.
without() { # role, json patch, what the message names
    kubectl patch clusterrole "$1" --type=json -p "$2" >/dev/null
    until_said "$3"
    kubectl apply -f "$scratch/rights.yaml" >/dev/null
}
without afferent-discover '[{"op": "replace", "path": "/rules/0/verbs", "value": ["list"]}]' 'cannot watch resource'
without afferent-discover '[{"op": "replace", "path": "/rules/0/verbs", "value": ["watch"]}]' 'cannot list resource'
without afferent-ask '[{"op": "remove", "path": "/rules/0"}]' 'cannot list resource "virtualmachines"'
without afferent-ask '[{"op": "replace", "path": "/rules/1/verbs", "value": ["list"]}]' 'cannot get resource|virtualmachineinstances/vsock'

# From a node less is enough.
kubectl delete clusterrolebinding afferent-ask >/dev/null
until_said 'roster guests=1' --dial node --kube-node n1
if grep -Eqi 'forbidden|cannot' "$scratch/log"; then cat "$scratch/log"; fail "the rights of the manifests of a node are too few"; fi
echo "manifests: accepted, and their rights are enough and none too many"
