#!/usr/bin/env bash
# The published cluster templates of the OpenStack provider, filled in as clusterctl does and otherwise as they are:
#   e2e/templates.sh FOLDER     (the folder templates/ of kubernetes-sigs/cluster-api-provider-openstack)
# Each is applied with kubectl, becomes Available, gets one more worker, a minor version more, and is deleted; nothing is left in the
# cloud. Against the sandbox; with OS_CLOUD and OS_CLIENT_CONFIG_FILE set, against that cloud (with hollow machines, for which
# ADMIN_CLOUD names its administrator's entry). TEMPLATES picks some. The last line counts.
set -euo pipefail
folder=$(cd "${1:?the folder of the templates}" && pwd)
cd "$(dirname "$0")/.."
. e2e/lib
version=v1.34.2 next=v1.35.0
told() {
  kubectl get clusters,openstackclusters,kcp,machines,openstackmachines -A -o wide
  kubectl get clusters -A -o jsonpath='{range .items[*].status.conditions[?(@.type=="Available")]}{.message}{"\n"}{end}'
  tail -n 5 "$work"/*.log
}

if [ -n "${OS_CLOUD:-}" ]; then
  "$skep" serve --state "$work/state" --listen 127.0.0.1:0 >"$work/serve.log" 2>&1 &
  "$skep" machines --state "$work/machines" --cloud "${ADMIN_CLOUD:?the administrator of the cloud}" >"$work/machines.log" 2>&1 &
else
  "$skep" up --no-cluster --port 0 --state "$work/state" >"$work/up.log" 2>&1 &
  export OS_CLOUD=skep-sandbox OS_CLIENT_CONFIG_FILE=$work/state/clouds.yaml
fi
export KUBECONFIG=$work/state/kubeconfig
for _ in $(seq 300); do [ -s "$KUBECONFIG" ] && kubectl get --raw /readyz >/dev/null 2>&1 && break; sleep 0.1; done
"$skep" doctor >"$work/doctor" || { cat "$work/doctor"; fail "the cloud"; }
answer() { sed -nE "s/^ok +$1 +(.*)/\1/p" "$work/doctor"; }

export KUBERNETES_VERSION=$version CONTROL_PLANE_MACHINE_COUNT=3 WORKER_MACHINE_COUNT=2 OPENSTACK_CLOUD=$OS_CLOUD OPENSTACK_CLOUD_CACERT_B64=Cg==
OPENSTACK_CLOUD_YAML_B64=$(base64 -w 0 "$OS_CLIENT_CONFIG_FILE")
OPENSTACK_EXTERNAL_NETWORK_ID=$(answer "external network" | sed -E 's/.*\((.*)\)/\1/')
OPENSTACK_FAILURE_DOMAIN=$(answer zones | sed 's/,.*//')
image=$(answer image | tail -n 1 | sed -E 's/.*: *([^,]*).*/\1/')
export OPENSTACK_CLOUD_YAML_B64 OPENSTACK_EXTERNAL_NETWORK_ID OPENSTACK_FAILURE_DOMAIN
export OPENSTACK_IMAGE_NAME=$image OPENSTACK_IMAGE_NAME_UPGRADE_FROM=$image OPENSTACK_FLATCAR_IMAGE_NAME=$image FLATCAR_IMAGE_NAME=$image
export OPENSTACK_SSH_KEY_NAME="" OPENSTACK_DNS_NAMESERVERS=192.0.2.53
export OPENSTACK_CONTROL_PLANE_MACHINE_FLAVOR=m1.medium OPENSTACK_NODE_MACHINE_FLAVOR=m1.small
# Variables that have no value here are others' to fill in (Ignition's own), as clusterctl's templates escape them with $$.
fill() { perl -pe 's/\$\$\{/\0/g; s/\$\{(\w+)(?::?=("?)(.*?)\2)?\}/exists $ENV{$1} ? $ENV{$1} : defined $3 ? ($3 eq "" && $2 ? q("") : $3) : $&/ge; s/\0/\${/g' "$folder/$1"; }

for name in ${TEMPLATES:-cluster-template cluster-template-without-lb cluster-template-flatcar cluster-template-flatcar-sysext cluster-template-capi-v1beta1 cluster-template-topology}; do
  export CLUSTER_NAME=${name#cluster-} NODE_IMAGE_URL BASTION_IMAGE_URL
  if [ "$name" = cluster-template-topology ]; then
    export CLOUD_CONFIG_SECRET=dev-test-cloud-config
    kubectl create secret generic $CLOUD_CONFIG_SECRET --from-file clouds.yaml="$OS_CLIENT_CONFIG_FILE" >/dev/null
    for part in clusterclass-dev-test image-template-node image-template-bastion; do
      fill $part.yaml >"$work/$part.yaml"
      kubectl apply -f "$work/$part.yaml" >/dev/null || fail "$part"
    done
  fi
  fill "$name.yaml" >"$work/$name.yaml"
  kubectl apply -f "$work/$name.yaml" >"$work/$name.log" 2>&1 || fail "apply $name"
  kubectl wait cluster "$CLUSTER_NAME" --for condition=Available --timeout 240s >/dev/null || fail "$name does not become Available"
  of=(--selector "cluster.x-k8s.io/cluster-name=$CLUSTER_NAME" -o name)
  md=$(kubectl get machinedeployments "${of[@]}") kcp=$(kubectl get kubeadmcontrolplanes "${of[@]}")
  if [ "$name" = cluster-template-topology ]; then
    upgraded=(cluster "$CLUSTER_NAME") version_of='{"spec":{"topology":{"version":"'$next'"}}}'
    patch=(cluster "$CLUSTER_NAME" --type json -p '[{"op":"replace","path":"/spec/topology/workers/machineDeployments/0/replicas","value":3}]')
  else
    upgraded=("$kcp") version_of='{"spec":{"version":"'$next'"}}'
    patch=("$md" --type merge -p '{"spec":{"replicas":3}}')
  fi
  kubectl patch "${patch[@]}" >/dev/null
  kubectl wait "$md" --for jsonpath='{.status.readyReplicas}'=3 --timeout 240s >/dev/null || fail "$name does not get a third worker"
  replicas=$(kubectl get "$kcp" -o jsonpath='{.spec.replicas}')
  kubectl patch "${upgraded[@]}" --type merge -p "$version_of" >/dev/null
  kubectl wait "$kcp" --for jsonpath='{.spec.version}'=$next --timeout 60s >/dev/null || fail "$name is not told of $next"
  seen "$kcp"
  for what in upToDateReplicas readyReplicas replicas; do
    kubectl wait "$kcp" --for jsonpath="{.status.$what}=$replicas" --timeout 600s >/dev/null || fail "$name: $what is not $replicas"
  done
  versions=$(kubectl get "$kcp" -o jsonpath='{.status.versions[*].version}')
  [ "$versions" = $next ] || fail "$name has control planes of $versions"
  kubectl wait cluster "$CLUSTER_NAME" --for condition=Available --timeout 240s >/dev/null || fail "$name is not Available any more"
  machines=$(kubectl get machines "${of[@]}" | wc -l)
  kubectl delete cluster "$CLUSTER_NAME" --timeout 240s >/dev/null || fail "$name does not go"
  orphans=$("$skep" cloud orphans 2>&1) || fail "skep cloud orphans: $orphans"
  printf '%s: %s machines; orphans: %s\n' "$name" "$machines" "$(tail -n 1 <<<"$orphans")"
  ok "$name, as it is published"
done
echo "published templates: $passed passed, 0 failed"
