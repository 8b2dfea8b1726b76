#!/usr/bin/env bash
# Catalogs of ours and the stock helm: helm adds, searches and pulls the charts that this project embeds; what is mirrored is a repository for
# helm too; a real registry takes what we push and what helm pushes, and each pulls the other's. The last line counts.
# Exit: 3 there is no Go to build helm with. REGISTRY names the registry's program (distribution), if `docker-registry` is not on the path.
set -euo pipefail
cd "$(dirname "$0")/.."
. e2e/lib
helm=$(conformance/helm/build helm)
cargo build --quiet --locked -p delivery --example catalog
ours=${CARGO_TARGET_DIR:-target}/debug/examples/catalog
servers=0
export HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm HELM_DATA_HOME=$work/helm
theirs() { (cd "$work" && "$helm" "$@") >"$work/theirs.log" 2>&1 || { cat "$work/theirs.log" >&2; return 1; }; }
sum() { sha256sum "$1" | cut -d' ' -f1; }
# A server in the background; its first line says where it is, in $at.
serve() {
  local said=$work/server-$((servers += 1)).url
  "$skep" catalog serve "$1" --listen 127.0.0.1:0 >"$said" 2>"$work/server-$servers.log" &
  for _ in $(seq 300); do at=$(head -n 1 "$said"); [ -n "$at" ] && return; sleep 0.1; done
  fail "skep catalog serve $1 did not start"
}
number=$(ls charts/*/Chart.yaml | wc -l)
listed() { "$helm" search repo "$1" -l -o json | grep -o '"name":' | wc -l; }

serve charts
embedded=$at
theirs repo add own "$embedded"
same "charts that helm finds" "$(listed own/)" "$number"
"$ours" list "$embedded" >"$work/all"
same "charts that we find" "$(wc -l <"$work/all")" "$number"
ok "helm finds all $number charts of the embedded catalog"
theirs pull own/hello-world
first=$(sum "$work"/hello-world-*.tgz)
"$helm" template web "$work"/hello-world-*.tgz --kube-version 1.34.0 >"$work/packed"
"$helm" template web charts/hello-world --kube-version 1.34.0 >"$work/folder"
cmp "$work/packed" "$work/folder" || fail "the packed chart renders otherwise than its folder"
ok "helm pulls a chart, and it is its folder"
serve charts
curl -fsS "$embedded/index.yaml" >"$work/one"
curl -fsS "$at/index.yaml" >"$work/other"
cmp "$work/one" "$work/other" || fail "the index is not the same each time"
ok "the same charts are the same bytes in another process"

"$ours" mirror "$embedded" "$work/mirror" hello-world 'cluster-resources@>=0.1' >"$work/copied"
same "what is copied" "$(grep -c ^copied "$work/copied")" 2
same "what is copied again" "$("$ours" mirror "$embedded" "$work/mirror" hello-world 'cluster-resources@>=0.1' | grep -c ^there)" 2
serve "$work/mirror"
theirs repo add mirror "$at"
same "charts of the mirror" "$(listed mirror/)" 2
rm "$work"/*.tgz
theirs pull mirror/hello-world
same "the digest" "$(sum "$work"/hello-world-*.tgz)" "$first"
ok "what is mirrored into a folder is a repository for helm"

registry=${REGISTRY:-$(command -v docker-registry || true)}
if [ -n "$registry" ]; then
  port=$((20000 + RANDOM % 10000))
  cat >"$work/registry.yaml" <<YAML
{version: 0.1, storage: {filesystem: {rootdirectory: "$work/registry"}}, http: {addr: "127.0.0.1:$port"}}
YAML
  "$registry" serve "$work/registry.yaml" >"$work/registry.log" 2>&1 &
  for _ in $(seq 300); do curl -fsS "http://127.0.0.1:$port/v2/" >/dev/null 2>&1 && break; sleep 0.1; done
  place=oci://127.0.0.1:$port/charts
  same "what is pushed" "$("$ours" mirror --plain-http "$embedded" "$place" hello-world cluster-resources | grep -c ^copied)" 2
  same "what is pushed again" "$("$ours" mirror --plain-http "$embedded" "$place" hello-world cluster-resources | grep -c ^there)" 2
  rm "$work"/*.tgz
  theirs pull --plain-http "$place/hello-world"
  same "the digest" "$(sum "$work"/hello-world-*.tgz)" "$first"
  ok "helm pulls from a registry what we pushed"
  theirs package "$PWD/charts/network-policy-baseline"
  theirs push --plain-http "$(basename "$work"/network-policy-baseline-*.tgz)" "$place"
  same "charts of the registry" "$("$ours" list --plain-http "$place" | wc -l)" 3
  "$ours" mirror --plain-http "$place" "$work/mirror" network-policy-baseline >"$work/copied"
  same "the digest" "$(sed -n 's/^copied .* sha256://p' "$work/copied")" "$(sum "$work"/network-policy-baseline-*.tgz)"
  ok "we list and pull what helm pushed"
else
  printf '\n!!!! SKIPPED: a registry: docker-registry is not there (apt install docker-registry, or REGISTRY=PROGRAM)\n\n' >&2
fi
printf 'catalog: %s passed, 0 failed\n' "$passed"
