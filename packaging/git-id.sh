#!/usr/bin/env bash
# Prints the git id that goes into --version: the commit, with -dirty when tracked files differ from it.
# A source archive without git is "unknown".
set -euo pipefail
cd "$(dirname "$0")/.."
git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || echo unknown
