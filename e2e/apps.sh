#!/usr/bin/env bash
# A user's day with apps, typed as `skep app` and `skep catalog` against `skep up`: install, look, change, go back, remove; what cannot be
# is refused before anything is made. The releases are read by the stock helm too. The last line counts.
# Exit: 3 there is no Go to build helm with.
set -euo pipefail
cd "$(dirname "$0")/.."
. e2e/lib
helm=$(conformance/helm/build helm)
export KUBECONFIG=$work/state/kubeconfig OS_CLIENT_CONFIG_FILE=$work/state/clouds.yaml
export HELM_CACHE_HOME=$work HELM_CONFIG_HOME=$work HELM_DATA_HOME=$work
told() {
  tail -n 20 "$work/up.log" "$work/out"
  [ ! -s "$KUBECONFIG" ] || { kubectl get apps -A -o wide; "$skep" catalog list; kubectl get events -A --field-selector type=Warning; }
}
# run CODE COMMAND...: what it prints is in out, on both streams.
run() {
  local wanted=$1 code=0
  shift
  "$skep" "$@" >"$work/out" 2>&1 || code=$?
  [ "$code" = "$wanted" ] || fail "skep $*: exit $code instead of $wanted"
}
says() { grep -qF -- "$1" "$work/out" || fail "it does not say: $1"; }
silent() { ! grep -qF -- "$1" "$work/out" || fail "it says: $1"; }
until_true() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; fail "not in time: $*"; }

"$skep" up --state "$work/state" --port 0 >"$work/up.log" 2>&1 &
for _ in $(seq 600); do grep -q "Cluster demo is Available" "$work/up.log" && break; sleep 0.1; done
grep -q "Cluster demo is Available" "$work/up.log" || fail "the demo cluster is not Available"
"$skep" get kubeconfig demo >"$work/demo.kubeconfig"
demo() { kubectl --kubeconfig "$work/demo.kubeconfig" "$@"; }
theirs() { "$helm" --kubeconfig "$work/demo.kubeconfig" "$@"; }

# A repository: hello-world in two versions, packed by the stock helm, and a chart that cannot be made.
mkdir -p "$work/repository" "$work/broken/templates"
for version in 1.0.0 1.1.0; do "$helm" package charts/hello-world --version "$version" --destination "$work/repository" >/dev/null; done
echo '{apiVersion: v2, name: broken, version: 1.0.0}' >"$work/broken/Chart.yaml"
cat >"$work/broken/templates/all.yaml" <<'YAML'
apiVersion: nobody.example.dev/v1
kind: Nothing
metadata: {name: broken}
YAML
"$helm" package "$work/broken" --destination "$work/repository" >/dev/null
# A chart with two tests: one ends as its value says, the other is there only as long as it runs.
mkdir -p "$work/probed/templates"
echo '{apiVersion: v2, name: probed, version: 1.0.0}' >"$work/probed/Chart.yaml"
echo 'code: "0"' >"$work/probed/values.yaml"
cat >"$work/probed/templates/tests.yaml" <<'YAML'
apiVersion: v1
kind: Pod
metadata:
  name: answers
  annotations:
    helm.sh/hook: test
    helm.sh/hook-weight: "1"
    hollow.skep.dev/log: it answers
    hollow.skep.dev/exit-code: {{ .Values.code | quote }}
spec: {restartPolicy: Never, containers: [{name: curl, image: curl}]}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: counts
  annotations:
    helm.sh/hook: test-success
    helm.sh/hook-delete-policy: hook-succeeded
    helm.sh/hook-output-log-policy: hook-succeeded
spec:
  template:
    metadata: {annotations: {hollow.skep.dev/log: one two three}}
    spec: {restartPolicy: Never, containers: [{name: count, image: count}]}
YAML
"$helm" package "$work/probed" --destination "$work/repository" >/dev/null
"$helm" repo index "$work/repository"
python3 -u -m http.server --bind 127.0.0.1 --directory "$work/repository" 0 >"$work/http.log" 2>&1 &
for _ in $(seq 100); do port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$work/http.log"); [ -n "$port" ] && break; sleep 0.1; done
[ -n "$port" ] || fail "the repository is not served"

run 0 catalog add shop --url "http://127.0.0.1:$port"
run 1 catalog add shop --url "http://127.0.0.1:$port"
says "catalog default/shop exists already"
run 1 catalog add other --url 127.0.0.1
says "is no address of a repository"
has_charts() { "$skep" catalog search hello-world --catalog "$1"; }
until_true has_charts shop
until_true has_charts default
run 0 catalog search HELLO --catalog shop
says "1.1.0"
silent "1.0.0"
run 4 catalog search nothing-of-this-name
run 0 catalog show shop
says "http://127.0.0.1:$port (helm)"
says "1.0.0"
run 0 catalog list
says "shop"
ok "a repository becomes a catalog, and its charts are found"

# What cannot be is refused before anything is made.
install=(app install hello hello-world --cluster demo)
run 1 "${install[@]}" --catalog missing
says "there is no catalog missing"
run 1 "${install[@]}" --catalog shop --version 9.9.9
says "catalog shop has no version 9.9.9 of chart hello-world: it has 1.0.0, 1.1.0"
run 1 app install hello hallo --cluster demo --catalog shop
says "catalog shop offers no chart hallo"
run 1 "${install[@]}" --catalog shop -n default
says "cannot live in namespace default"
run 1 app install hello hello-world --cluster nowhere --catalog shop
says "there is no cluster nowhere"
run 2 app install hello --catalog shop
run 0 "${install[@]}" --catalog shop --version 1.0.0 --set replicaCount=2 --dry-run
says "name: hello-user-values"
[ -z "$(kubectl get apps -A --no-headers 2>/dev/null | grep -w hello || true)" ] || fail "an app was made"
ok "a bad catalog, chart, version, namespace or cluster is refused, and nothing is made"

echo 'podAnnotations: {note: s3cret}' >"$work/secret.yaml"
run 0 "${install[@]}" --catalog shop --version 1.0.0 --target-namespace web --set replicaCount=2 --secret-values "$work/secret.yaml"
says "app demo/hello is deployed, version 1.0.0"
deployment=$(demo get deployments -n web -o name)
replicas() { demo get -n web "$deployment" -o jsonpath='{.spec.replicas}'; }
[ "$(replicas)" = 2 ] || fail "$(replicas) replicas are wished"
run 1 "${install[@]}" --catalog shop --version 1.0.0
says "app demo/hello exists already"
ok "a chart is installed with values and secret values"

run 0 app list
grep -Eq 'demo +hello +demo +hello-world +1\.0\.0 +deployed' "$work/out" || fail "the list has another line"
run 0 app list -n default -o json
silent '"name": "hello"'
run 0 app list --cluster demo -o wide
says "web"
run 0 app show hello
says "revision 1, deployed"
says "ConfigMap demo/hello-user-values (the user's)"
says "Secret demo/hello-user-secrets (the user's)"
run 0 app values hello --all
says "note: (hidden)"
silent s3cret
run 0 app values hello --all --show-secrets
says "note: s3cret"
run 0 app values hello --layers
says "replicaCount: 2"
run 4 app show nobody
run 4 app values nobody -n demo
ok "it is listed and shown, with the layers of its values, and secrets are hidden"

run 0 app diff hello
says "0 made, 0 changed, 0 deleted"
run 0 app diff hello --version 1.1.0 --set replicaCount=3
says "-  replicas: 2"
says "+  replicas: 3"
run 0 app diff hello --live
says "0 changed"
demo scale -n web "$deployment" --replicas 5 >/dev/null
run 0 app diff hello --live
says "-  replicas: 5"
says "+  replicas: 2"
demo scale -n web "$deployment" --replicas 2 >/dev/null
run 1 app diff hello --version 9.9.9
says "has no version 9.9.9"
ok "differences are told object by object, also those that others have made"

run 0 app upgrade hello --version 1.1.0 --set replicaCount=3 --diff
says "nothing was changed: add --yes"
[ "$(replicas)" = 2 ] || fail "a diff changed something"
run 0 app upgrade hello --version 1.1.0 --set replicaCount=3 --diff --yes
says "app demo/hello is deployed, version 1.1.0"
[ "$(replicas)" = 3 ] || fail "$(replicas) replicas after the upgrade"
run 0 app upgrade hello --version 1.1.0 --set replicaCount=3
says "nothing was changed"
run 1 app upgrade hello
says "nothing is to be changed"
run 1 app upgrade hello --set replicaCount=many
says "values-schema-violation"
run 0 app upgrade hello --set replicaCount=3
ok "an upgrade is shown before it is made, and values that the chart refuses are told"

run 0 app history hello
says "hello-world-1.0.0"
last=$(tail -n 1 "$work/out" | awk '{print $1}')
[ "$(theirs history hello -n web -o json | grep -o '"revision":[0-9]*' | tail -n 1)" = "\"revision\":$last" ] || fail "helm has another history"
[ "$(theirs get values hello -n web -o json)" = '{"podAnnotations":{"note":"s3cret"},"replicaCount":3}' ] || fail "helm has other values"
run 1 app rollback hello 99
says "revision 99 is not kept"
run 0 app rollback hello 1
says "goes back to revision 1: version 1.1.0 -> 1.0.0"
says "app demo/hello is deployed, version 1.0.0"
[ "$(replicas)" = 2 ] || fail "$(replicas) replicas after the rollback"
[ "$(kubectl get app hello -n demo -o jsonpath='{.spec.version}')" = 1.0.0 ] || fail "the App is of another version"
[ "$(theirs get values hello -n web -o json)" = '{"podAnnotations":{"note":"s3cret"},"replicaCount":2}' ] || fail "other values than those of revision 1"
! kubectl get configmap hello-user-values -n demo -o yaml | finds s3cret || fail "a secret became open"
ok "the history is helm's own, and version and values go back"

run 1 app install broken --catalog shop --cluster demo
says "app demo/broken is not deployed"
says "nobody.example.dev/v1"
run 0 app show broken
says "nobody.example.dev/v1"
run 0 app uninstall broken
run 0 app install fixed hello-world --catalog default --cluster demo
says "app demo/fixed is deployed"
run 0 app diff fixed --set replicaCount=2
says "+  replicas: 2"
run 0 catalog mirror default hello-world --to "$work/mirror"
[ -s "$work/mirror/index.yaml" ] || fail "no index in the mirror"
ok "a chart that fails says why, and the catalog of the binary needs no repository"

run 0 app install probed probed --catalog shop --cluster demo --target-namespace probed
run 0 app test probed --filter name=counts
says "one two three"
silent "answers"
run 0 app test probed --logs
grep -Eq '^answers +Pod +Succeeded' "$work/out" || fail "answers has another phase"
grep -Eq '^counts +Job +Succeeded' "$work/out" || fail "counts has another phase"
says "it answers"
theirs status probed -n probed >"$work/out"
[ "$(grep -c '^Phase: *Succeeded' "$work/out")" = 2 ] || fail "helm status has other phases"
[ -z "$(demo get jobs -n probed -o name)" ] || fail "the job is left"
theirs test probed -n probed --filter name=answers --logs >"$work/out" || fail "helm test"
says "POD LOGS: answers"
says "it answers"
run 1 app test probed --filter name=nothing
says "its tests: counts, answers"
run 0 app upgrade probed --set-string code=3
run 1 app test probed
says "pod answers failed"
grep -Eq '^answers +Pod +Failed' "$work/out" || fail "answers has another phase"
theirs status probed -n probed | finds '^Phase: *Failed' || fail "helm status does not know that it failed"
run 0 app test hello
says "has no tests"
run 0 app uninstall probed
ok "tests of a release run, with their logs, and the stock helm sees and runs the same"

run 0 app uninstall fixed --no-wait
run 0 app uninstall hello
says "app demo/hello removed"
[ -z "$(theirs list -n web -q)" ] || fail "the release is there"
[ -z "$(kubectl get configmaps,secrets -n demo -o name | grep hello-user || true)" ] || fail "values of the user are left"
run 4 app uninstall hello
ok "what is uninstalled leaves nothing"

printf 'apps: %s passed, 0 failed\n' "$passed"
