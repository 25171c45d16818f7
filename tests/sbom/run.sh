#!/usr/bin/env bash
# Writes bills of materials and has them judged by programs of others; everything they need is kept in target/sbom.
# Usage: tests/sbom/run.sh judges    the schema, spdx-tools, Syft and checks of our own, over every database of the tests
#        tests/sbom/run.sh trivy     Trivy's own packages, over systems of every distribution that it knows
#        tests/sbom/run.sh grype     the real grype, built from source (ten minutes of a processor the first time), over the same
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PATH:$HOME/.cargo/bin
kept=$PWD/target/sbom
mkdir -p "$kept"
case ${1:-} in judges | trivy | grype) ;; *) echo "run.sh: judges, trivy or grype, not '${1:-}'" >&2; exit 2 ;; esac
packaging/install-deps.sh "sbom-$1"
cargo build --locked --quiet --bin afferent
afferent=${CARGO_TARGET_DIR:-target}/debug/afferent

# Whether what is kept was made from this file; says so from now on.
is_made_from() { cmp -s "$1" "$kept/$2.made-from"; }
made_from() { cp "$1" "$kept/$2.made-from"; }

judges() {
    if ! is_made_from tests/sbom/node/package-lock.json node; then
        rm -rf "$kept/node"
        cp -r tests/sbom/node "$kept/node"
        npm ci --prefix "$kept/node" --no-audit --no-fund --loglevel error
        made_from tests/sbom/node/package-lock.json node
    fi
    cp tests/sbom/node/schema.mjs "$kept/node/"
    if ! is_made_from tests/sbom/requirements.txt python; then
        rm -rf "$kept/python"
        python3 -m venv "$kept/python"
        "$kept/python/bin/pip" install --quiet --disable-pip-version-check -r tests/sbom/requirements.txt
        made_from tests/sbom/requirements.txt python
    fi
    rm -rf "$kept/fixtures"
    mkdir "$kept/fixtures"
    python3 tests/sbom/fixtures.py "$afferent" "$kept/fixtures"
    node "$kept/node/schema.mjs" valid "$kept"/fixtures/*.cdx.json
    # What the sensor uploads to Dependency-Track in its tests.
    rm -rf "$kept/uploads"
    mkdir "$kept/uploads"
    AFFERENT_KEEP_UPLOADS=$kept/uploads cargo test --locked --quiet --test it sense_dependency_track
    node "$kept/node/schema.mjs" valid "$kept"/uploads/*.cdx.json
    for judge in own spdx syft broken; do
        "$kept/python/bin/python" tests/sbom/check.py $judge "$kept/fixtures"
    done
}

trivy() {
    (cd tests/sbom/trivy && CGO_ENABLED=0 go build -o "$kept/trivy-judge" .)
    python3 -B tests/sbom/trivy.py "$afferent" "$kept/trivy-judge"
}

grype() {
    echo "sbom: building grype"
    (cd tests/sbom/grype && CGO_ENABLED=0 go build -o "$kept/grype-database" . && CGO_ENABLED=0 go build -o "$kept/grype" github.com/anchore/grype/cmd/grype)
    python3 -B tests/sbom/grype.py "$afferent" "$kept/grype" "$kept/grype-database"
}

"$1"
