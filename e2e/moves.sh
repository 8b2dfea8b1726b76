#!/usr/bin/env bash
# A cluster goes from one management cluster to another and back: there with `skep move`, back with the stock clusterctl, which also
# describes it, fetches its kubeconfig and restarts a rollout. The servers in the cloud stay the same. The last line counts.
# CLUSTERCTL names the program; without it, it is built with Go, and without Go what needs it is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
. e2e/lib
release=v1.13.6

clusterctl=${CLUSTERCTL:-}
if [ -z "$clusterctl" ]; then
  clusterctl=${XDG_CACHE_HOME:-$HOME/.cache}/skep/clusterctl/$release/clusterctl
  if [ ! -x "$clusterctl" ] && [ -n "$(command -v go)" ]; then
    GOBIN=$(dirname "$clusterctl") go install "sigs.k8s.io/cluster-api/cmd/clusterctl@$release" || true
  fi
fi
[ -x "$clusterctl" ] || { printf '\n!!!! SKIPPED: the stock clusterctl: there is none, and no Go to build it (CLUSTERCTL names one)\n\n' >&2; clusterctl=; }

told() {
  tail -n 20 "$work"/*.log
  for one in a b; do "$skep" describe cluster demo --kubeconfig "$work/$one/kubeconfig"; done
}
export CLUSTERCTL_DISABLE_VERSIONCHECK=true
a=$work/a/kubeconfig b=$work/b/kubeconfig

# until LIMIT_S WHAT COMMAND...: until the command succeeds.
until_ok() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || fail "$what"
    sleep 1
  done
}
servers() { "$skep" get machines --kubeconfig "$1" -o json | grep -o '"providerID": *"[^"]*"' | sort; }
# All machines of the management cluster are there and ready.
ready() { [ "$("$skep" get machines --kubeconfig "$1" | awk 'NR > 1 && $5 == "True" && $7 != "-"' | wc -l)" = "$2" ]; }

"$skep" up --state "$work/a" --port 0 >"$work/a.log" 2>&1 &
"$skep" serve --state "$work/b" --listen 127.0.0.1:0 >"$work/b.log" 2>&1 &
until_ok 300 "the demo cluster is ready" ready "$a" 6
until_ok 30 "the other management cluster answers" "$skep" get clusters --kubeconfig "$b"
before=$(servers "$a")
[ "$(wc -l <<<"$before")" = 6 ] || fail "six machines have servers"
ok "two management clusters, a cluster in one of them"

"$skep" move --kubeconfig "$a" --to-kubeconfig "$b" --dry-run | finds ' objects would be moved; nothing was changed' || fail "the dry run"
"$skep" move --kubeconfig "$a" --to-kubeconfig "$b" >"$work/move.log"
until_ok 120 "the cluster is ready where it went" ready "$b" 6
[ "$(servers "$b")" = "$before" ] || fail "the servers are the same after skep move"
[ "$("$skep" get clusters --kubeconfig "$a" -o json | grep -c '"kind": *"Cluster"')" = 0 ] || fail "nothing is left in the source"
ok "skep move"

"$skep" rollout restart md/demo-md-0 --kubeconfig "$b" >/dev/null
"$skep" rollout status md/demo-md-0 --kubeconfig "$b" --timeout-s 120 >/dev/null 2>&1 || fail "a machine is replaced after the move"
[ "$(comm -12 <(servers "$b") <(printf '%s\n' "$before") | wc -l)" = 5 ] || fail "one server of six is another one"
until_ok 120 "all are ready again" ready "$b" 6
ok "the target's controllers replace a machine"

"$skep" upgrade plan demo --kubeconfig "$b" | finds 'KubeadmControlPlane demo-control-plane: 3 machines' || fail "the plan of an upgrade"
ok "skep upgrade plan"

if [ -n "$clusterctl" ]; then
  "$clusterctl" describe cluster demo --kubeconfig "$b" >"$work/describe.log"
  grep -q 'ControlPlane - KubeadmControlPlane/demo-control-plane' "$work/describe.log" || fail "clusterctl describe"
  ok "clusterctl describe cluster"
  "$clusterctl" get kubeconfig demo --kubeconfig "$b" >"$work/demo.yaml"
  grep -q 'client-key-data' "$work/demo.yaml" || fail "clusterctl get kubeconfig"
  ok "clusterctl get kubeconfig"
  before=$(servers "$b")
  "$clusterctl" move --kubeconfig "$b" --to-kubeconfig "$a" -n default >"$work/clusterctl.log" 2>&1
  until_ok 120 "the cluster is ready where it came from" ready "$a" 6
  [ "$(servers "$a")" = "$before" ] || fail "the servers are the same after clusterctl move"
  ok "clusterctl move"
  "$clusterctl" alpha rollout pause machinedeployment/demo-md-1 --kubeconfig "$a" >/dev/null 2>&1
  "$clusterctl" alpha rollout resume machinedeployment/demo-md-1 --kubeconfig "$a" >/dev/null 2>&1
  "$clusterctl" alpha rollout restart machinedeployment/demo-md-1 --kubeconfig "$a" >/dev/null 2>&1
  "$skep" rollout status md/demo-md-1 --kubeconfig "$a" --timeout-s 120 >/dev/null 2>&1 || fail "clusterctl alpha rollout restart"
  ok "clusterctl alpha rollout"
  home=$a
else
  home=$b
fi
"$skep" delete cluster demo --kubeconfig "$home" --timeout-s 120 >/dev/null 2>&1 || fail "the cluster is deleted after its journey"
ok "delete"
echo "moves: $passed passed, 0 failed"
