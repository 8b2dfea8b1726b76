#!/usr/bin/env bash
# A user of v1beta1 with stock kubectl against `skep up`: their manifests are applied as they are, the cluster becomes Available, and what
# they read and change is v1beta1.
set -euo pipefail
cd "$(dirname "$0")/.."
. e2e/lib
needs "a user of v1beta1" kubectl
export KUBECONFIG=$work/state/kubeconfig

"$skep" up --state "$work/state" --port 0 >"$work/up.log" 2>&1 &
for _ in $(seq 600); do grep -q "Cluster demo is Available" "$work/up.log" && break; sleep 0.1; done
external=$(kubectl get openstackcluster demo -o jsonpath='{.spec.externalNetwork.id}')
sed -e "s/@EXTERNAL@/$external/; s/@CLOUDS@/$(base64 -w 0 "$work/state/clouds.yaml")/" e2e/v1beta1.yaml >"$work/old.yaml"

kubectl apply -f "$work/old.yaml" >/dev/null 2>&1 || fail "the manifests are refused: $(kubectl apply -f "$work/old.yaml" 2>&1)"
kubectl wait clusters.v1beta1.cluster.x-k8s.io old --for=condition=Ready --timeout=120s >/dev/null 2>&1 || fail "not Ready"
kubectl wait cluster old --for=condition=Available --timeout=120s >/dev/null || fail "not Available"
ok "manifests of v1beta1 become an Available cluster"
[ -z "$(kubectl apply -f "$work/old.yaml" 2>/dev/null | grep -v unchanged)" ] || fail "applied again, something changes"
ok "the same manifests again change nothing"

old() { kubectl get "$1.v1beta1.$2" "$3" -o jsonpath="{$4}" 2>/dev/null; }
is() { [ "$2" = "$3" ] || fail "$1 is \"$2\", not \"$3\""; }
is "the cluster's reference" "$(old clusters cluster.x-k8s.io old .spec.infrastructureRef.apiVersion)" infrastructure.cluster.x-k8s.io/v1beta1
is "infrastructureReady" "$(old clusters cluster.x-k8s.io old .status.infrastructureReady)" true
is "controlPlaneReady" "$(old clusters cluster.x-k8s.io old .status.controlPlaneReady)" true
is "updatedReplicas" "$(old machinedeployments cluster.x-k8s.io old-md-0 .status.updatedReplicas)" 2
is "the flavour" "$(old openstackmachinetemplates infrastructure.cluster.x-k8s.io old-md-0 .spec.template.spec.flavor)" m1.small
is "the arguments" "$(old kubeadmcontrolplanes controlplane.cluster.x-k8s.io old-control-plane .spec.kubeadmConfigSpec.clusterConfiguration.controllerManager.extraArgs.cloud-provider)" external
is "the drain timeout" "$(kubectl get machinedeployment old-md-0 -o jsonpath='{.spec.template.spec.deletion.nodeDrainTimeoutSeconds}')" 90
ok "each version tells it in its own words"

kubectl patch machinedeployments.v1beta1.cluster.x-k8s.io old-md-0 --type merge -p '{"spec":{"replicas":1,"template":{"spec":{"nodeDrainTimeout":"2m0s"}}}}' >/dev/null 2>&1
is "the drain timeout" "$(kubectl get machinedeployment old-md-0 -o jsonpath='{.spec.template.spec.deletion.nodeDrainTimeoutSeconds}')" 120
kubectl wait machinedeployment/old-md-0 --for=jsonpath='{.status.replicas}'=1 --timeout=120s >/dev/null || fail "it does not scale"
ok "a change in v1beta1 is acted upon"
kubectl patch clusters.v1beta1.cluster.x-k8s.io old --subresource status --type json -p '[{"op":"add","path":"/status/conditions/-","value":{"type":"Backup","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}}]' >/dev/null 2>&1
is "what is said in v1beta1" "$(kubectl get cluster old -o jsonpath='{.status.deprecated.v1beta1.conditions[*].type}')" Backup
is "what is shown there" "$(old clusters cluster.x-k8s.io old '.status.conditions[?(@.type=="Backup")].status')" True
ok "a condition of one's own stays beside those that are made"
said=$(kubectl patch kubeadmcontrolplanes.v1beta1.controlplane.cluster.x-k8s.io old-control-plane --type merge -p '{"spec":{"replicas":2}}' 2>&1 || true)
grep -q "etcd" <<<"$said" || fail "an even control plane is accepted: $said"
ok "what the rules refuse is refused in v1beta1 too"
kubectl delete clusters.v1beta1.cluster.x-k8s.io old --timeout=120s >/dev/null 2>&1 || fail "it is not deleted"
ok "and it goes away"
echo "a user of v1beta1: $passed passed, 0 failed"
