#!/usr/bin/env bash
# cargo-deny: licences, duplicate versions, sources. The tool is built once and kept by cargo.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "$(cargo deny --version 2>/dev/null)" ]; then
  cargo install --quiet --locked cargo-deny || { echo "deny: SKIPPED: cargo-deny cannot be installed here" >&2; exit 0; }
fi
# Optional dependencies are in no build, and so not here yet.
cargo fetch --quiet --locked || true
cargo deny --log-level error --offline --locked check bans licenses sources
