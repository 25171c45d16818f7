#!/usr/bin/env bash
# Prints the time that reproducible builds pretend it is: of the last commit, else 2026-01-01.
set -euo pipefail
cd "$(dirname "$0")/.."
git log -1 --format=%ct 2>/dev/null || echo 1767225600
