#!/usr/bin/env bash
# Releases of ours and of the stock helm, in turn, on one cluster: each lists, reads, changes and removes what the other made; and a
# process that ends at any write is followed by another. On our API server, then on kube-apiserver. The last line counts.
# Exit: 3 there is no Go to build helm with.
set -euo pipefail
cd "$(dirname "$0")/.."
. e2e/lib
helm=$(conformance/helm/build helm)
cargo build --quiet --locked -p apiserver --example serve
cargo build --quiet --locked -p delivery --example release
built=${CARGO_TARGET_DIR:-target}/debug/examples
told() {
  "$helm" history shop 2>&1 || true
  tail -n 5 "$work"/*.log
}

export KUBECONFIG=$work/kubeconfig HELM_CACHE_HOME=$work HELM_CONFIG_HOME=$work HELM_DATA_HOME=$work
mkdir -p "$work/shop/templates"
cat >"$work/shop/Chart.yaml" <<'YAML'
{apiVersion: v2, name: shop, version: 0.1.0, appVersion: "7", description: a shop, keywords: [a], maintainers: [{name: m, email: m@example.dev}]}
YAML
cat >"$work/shop/values.yaml" <<'YAML'
{color: red, replicas: 1, extra: false}
YAML
cat >"$work/shop/templates/all.yaml" <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}"}
data: {color: "{{ .Values.color }}", revision: "{{ .Release.Revision }}"}
---
apiVersion: v1
kind: Service
metadata: {name: "{{ .Release.Name }}"}
spec:
  selector: {app: shop}
  ports: [{name: tcp, port: 53}, {name: udp, port: 53, protocol: UDP}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{ .Release.Name }}"}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: "shop:{{ .Values.color }}"}]}
{{- if .Values.extra }}
---
apiVersion: v1
kind: Secret
metadata: {name: "{{ .Release.Name }}-extra"}
stringData: {a: b}
{{- end }}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-note", annotations: {helm.sh/hook: "pre-install,pre-upgrade,post-rollback,post-delete"}}
data: {revision: "{{ .Release.Revision }}"}
YAML
echo 'Welcome to {{ .Release.Name }}.' >"$work/shop/templates/NOTES.txt"

ours() { "$built/release" "$KUBECONFIG" "$@" >"$work/ours.log" 2>&1 || { cat "$work/ours.log" >&2; return 1; }; tail -n 1 "$work/ours.log"; }
theirs() { "$helm" "$@" >"$work/theirs.log" 2>&1 || { cat "$work/theirs.log" >&2; return 1; }; }
color() { kubectl get configmap shop -o jsonpath='{.data.color} {.data.revision}'; }
image() { kubectl get deployment shop -o jsonpath='{.spec.template.spec.containers[*].image}'; }
history() { "$helm" history shop -o json | sed 's/},{/}\n{/g' | sed -E 's/.*"revision":([0-9]+).*"status":"([^"]*)".*/\1 \2/' | paste -sd,; }

# On whatever cluster $KUBECONFIG names; what is told begins with its name.
day() {
same "an installation" "$(ours install shop default "$work/shop" color=blue)" "done: revision 1, deployed"
same "helm list" "$("$helm" list -o json | sed -E 's/"updated":"[^"]*",//')" \
  '[{"name":"shop","namespace":"default","revision":"1","status":"deployed","chart":"shop-0.1.0","app_version":"7"}]'
ok "helm lists what we installed"
same "values" "$("$helm" get values shop -o json)" '{"color":"blue"}'
same "all values" "$("$helm" get values shop --all -o json)" '{"color":"blue","extra":false,"replicas":1}'
same "notes" "$("$helm" get notes shop | grep Welcome)" "Welcome to shop."
"$helm" template shop "$work/shop" --set color=blue --no-hooks >"$work/rendered"
same "the manifest" "$("$helm" get manifest shop | sed -e '$d')" "$(cat "$work/rendered")"
same "the hooks" "$("$helm" get hooks shop | grep -c '^kind: ConfigMap')" 1
same "the chart" "$("$helm" get metadata shop -o json | sed -E 's/.*"chart":"([^"]*)","version":"([^"]*)".*/\1 \2/')" "shop 0.1.0"
"$helm" status shop | finds '^STATUS: deployed$' || fail "helm status"
ok "helm reads values, notes, manifest, hooks and chart of ours"

same "an upgrade" "$(ours upgrade shop default "$work/shop" color=green extra=true)" "done: revision 2, deployed"
theirs upgrade shop "$work/shop" --set color=white
same "after helm's upgrade" "$(color), $(image), $(kubectl get secret shop-extra --ignore-not-found)" "white 3, shop:white, "
ok "helm upgrades what we upgraded: what only ours had is gone"
same "an upgrade of helm's" "$(ours upgrade shop default "$work/shop" color=black extra=true)" "done: revision 4, deployed"
same "after our upgrade" "$(color), $(image)" "black 4, shop:black"
theirs rollback shop 1
same "after helm's rollback" "$(color), $(image), $(kubectl get secret shop-extra --ignore-not-found)" "blue 1, shop:blue, "
ok "helm rolls ours back"
same "a rollback" "$(ours rollback shop default --to 3)" "done: revision 6, deployed"
same "after our rollback" "$(color)" "white 3"
same "the history" "$(history)" "1 superseded,2 superseded,3 superseded,4 superseded,5 superseded,6 deployed"
ok "we roll back to a revision of helm's; the history is one"
theirs uninstall shop
same "what is left" "$(kubectl get configmap,service,deployment,secret -o name | grep shop | paste -sd,)" "configmap/shop-note"
kubectl delete configmap shop-note >/dev/null
ok "helm uninstalls ours, and nothing is left but a hook"

theirs install shop "$work/shop" --set color=blue,extra=true
kubectl patch configmap shop --type merge -p '{"data":{"others":"1"}}' >/dev/null
same "a diff" "$(ours diff shop default "$work/shop" color=red >/dev/null; sed -E 's/ in namespace "default"//' "$work/ours.log" | paste -sd,)" \
  'Changed ConfigMap "shop" data.color data.revision,Same Service "shop" ,Changed Deployment "shop" spec.template.spec.containers[0].image,Deleted Secret "shop-extra" '
same "an upgrade" "$(ours upgrade shop default "$work/shop" color=red)" "done: revision 2, deployed"
same "after our upgrade" "$(color), $(kubectl get secret shop-extra --ignore-not-found), $(kubectl get configmap shop -o jsonpath='{.data.others}')" "red 2, , 1"
same "helm's own chart" "$("$helm" get values shop --revision 1 -o json)" '{"color":"blue","extra":true}'
ok "we upgrade what helm installed, after a diff"
kubectl scale deployment shop --replicas 9 >/dev/null
same "drift" "$(ours drift shop default >/dev/null; grep ^Changed "$work/ours.log")" 'Changed Deployment "shop" in namespace "default" spec.replicas'
same "a correction" "$(ours correct shop default)" "corrected"
same "after it" "$(kubectl get deployment shop -o jsonpath='{.spec.replicas}')" 1
ok "drift is told and put back"
theirs upgrade shop "$work/shop" --reuse-values --set replicas=2
same "values that helm reuses" "$(color), $("$helm" get values shop -o json)" 'red 3, {"color":"red","replicas":2}'
ok "helm reuses values that we kept"
same "a removal" "$(ours uninstall shop default --wait)" "gone"
same "what is left" "$("$helm" list -a -q)$(kubectl get secret -o name)" ""
ok "we uninstall what helm installed"

ours install shop default "$work/shop" --keep-history >/dev/null
same "a removal" "$(ours uninstall shop default --keep-history)" "done: revision 1, uninstalled"
same "helm's list" "$("$helm" list --uninstalled -q)" shop
theirs rollback shop 1
same "after helm's rollback" "$(color)" "red 1"
theirs uninstall shop --keep-history
same "an installation upon it" "$(ours install shop default "$work/shop" color=new)" "done: revision 3, deployed"
ok "a history that was kept is gone on with, by both"

# A process that ends before each of its writes in turn, with nothing tidied up.
died=0
for write in $(seq 1 40); do
  if ours upgrade shop default "$work/shop" "color=c$write" extra=true --token "$write" --kill "$write" >/dev/null 2>&1; then break; fi
  died=$((died + 1))
  case $(history) in *pending*) if theirs upgrade shop "$work/shop" 2>/dev/null; then fail "helm upgraded what is under way"; fi ;; esac
  ours upgrade shop default "$work/shop" "color=c$write" extra=true --token "$write" >/dev/null || fail "nobody could go on after write $write"
  same "after write $write" "$(color)" "c$write $((write + 3))"
  # So that each has something to make and to delete.
  kubectl delete secret shop-extra >/dev/null
done
[ "$died" -gt 5 ] || fail "only $died writes"
same "the history" "$("$helm" history shop --max 300 | grep -c deployed)" 1
theirs rollback shop
ok "an upgrade that is killed at any of its $died writes is gone on with, once; helm waits for it"
}

"$built/serve" "$KUBECONFIG" >"$work/serve.log" 2>&1 &
for _ in $(seq 300); do [ -s "$KUBECONFIG" ] && kubectl get --raw /readyz >/dev/null 2>&1 && break; sleep 0.1; done
where="our API server"
day

if kube_apiserver; then
  where="kube-apiserver"
  day
else
  printf '\n!!!! SKIPPED: releases on kube-apiserver: it is not built (conformance/run builds it)\n\n' >&2
fi
printf 'helm: %s passed, 0 failed\n' "$passed"
