#!/usr/bin/env bash
# `skep up --until-ready` from nothing: the demo cluster comes up, and what it prints can be read by a script.
set -euo pipefail
cd "$(dirname "$0")/.."
skep=target/release/skep
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
last=$("$skep" up --state "$state" --port 0 --until-ready | tail -n 1)
printf '%s\n' "$last"
for field in api_ready_s cluster_ready_s rss_mib; do
  printf '%s' "$last" | grep -q "\"$field\":[0-9]" || { echo "up: no $field in its last line" >&2; exit 1; }
done
# Again over the same state: the cluster is there and comes back.
"$skep" up --state "$state" --port 0 --until-ready >/dev/null
echo "up: 2 passed, 0 failed"
