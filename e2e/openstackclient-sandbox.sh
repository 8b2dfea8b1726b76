#!/usr/bin/env bash
# The stock `openstack` command (PyPI's python-openstackclient) against the sandbox cloud.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/tools/openstackclient
if [ ! -x "$venv/bin/openstack" ]; then
  python3 -m venv "$venv" && "$venv/bin/pip" install --quiet python-openstackclient python-octaviaclient || {
    rm -rf "$venv"
    printf '\n!!!! SKIPPED: the stock OpenStack client cannot be installed here (python3-venv and PyPI)\n\n' >&2
    exit 0
  }
fi
state=$(mktemp -d)
target/release/skep sandbox --state "$state" 2>"$state/log" &
pid=$!
trap 'kill $pid 2>/dev/null; wait 2>/dev/null; rm -rf "$state"' EXIT
for _ in $(seq 100); do [ -s "$state/clouds.yaml" ] && break; sleep 0.1; done
OS_CLIENT_CONFIG_FILE=$state/clouds.yaml OS_CLOUD=skep-sandbox OPENSTACK=$PWD/$venv/bin/openstack e2e/openstackclient.sh
