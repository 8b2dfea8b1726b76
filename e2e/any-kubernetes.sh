#!/usr/bin/env bash
# The controllers beside a Kubernetes that is not ours: etcd, kube-apiserver and kube-controller-manager as they are published, the
# kinds and webhooks of `skep install`, `skep controllers`, and a cluster in the sandbox's cloud: created, asked for in both versions,
# refused where it is wrong; the controllers are killed; then the same day with kubectl as against ours (lifecycle.sh). The last line counts.
# Its binaries are those that conformance/run builds.
set -euo pipefail
cd "$(dirname "$0")/.."
. e2e/lib
version=$(sed -nE 's~^(require )?\s*k8s.io/kubernetes (v[0-9.]+)( // indirect)?$~\2~p' conformance/go.mod)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/skep/conformance/$version
needs "the controllers beside kube-apiserver" kubectl openssl
for program in etcd kube-apiserver kube-controller-manager; do
  [ -x "$cache/$program" ] || skip "the controllers beside kube-apiserver: there is no $program (conformance/programs builds it)"
done
told() {
  tail -n 20 "$work"/*.log
  kubectl get clusters,machines,machinesets,machinedeployments,kcp,openstackclusters -A -o wide
}
export KUBECONFIG=$work/kubeconfig

# Below the ports that outgoing connections take.
base=$((20000 + RANDOM % 5000 * 2))
etcd=$base peers=$((base + 1)) api=$((base + 2)) hooks=$((base + 3)) manager=$((base + 4)) cloud=$((base + 5))
(
  cd "$work"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=ca -keyout ca.key -out ca.crt
  sign() { # name, subject
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -out "$1.crt" \
      -extfile <(printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n')
  }
  sign server /CN=kube-apiserver
  sign admin /O=system:masters/CN=admin
  sign controllers /O=skep:controllers/CN=controllers
  openssl ecparam -name prime256v1 -genkey -noout -out sa.key
  openssl ec -in sa.key -pubout -out sa.pub
) >/dev/null 2>&1
kubeconfig() { # user
  kubectl config --kubeconfig "$work/$1.yaml" set-cluster k --server "https://127.0.0.1:$api" --certificate-authority "$work/ca.crt" --embed-certs >/dev/null
  kubectl config --kubeconfig "$work/$1.yaml" set-credentials "$1" --client-certificate "$work/$1.crt" --client-key "$work/$1.key" --embed-certs >/dev/null
  kubectl config --kubeconfig "$work/$1.yaml" set-context k --cluster k --user "$1" >/dev/null
  kubectl config --kubeconfig "$work/$1.yaml" use-context k >/dev/null
}
kubeconfig admin
kubeconfig controllers
cp "$work/admin.yaml" "$KUBECONFIG"

"$cache/etcd" --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$etcd" --advertise-client-urls "http://127.0.0.1:$etcd" \
  --listen-peer-urls "http://127.0.0.1:$peers" --initial-advertise-peer-urls "http://127.0.0.1:$peers" \
  --initial-cluster "default=http://127.0.0.1:$peers" >"$work/etcd.log" 2>&1 &
"$cache/kube-apiserver" --etcd-servers "http://127.0.0.1:$etcd" --secure-port "$api" --bind-address 127.0.0.1 \
  --tls-cert-file "$work/server.crt" --tls-private-key-file "$work/server.key" --client-ca-file "$work/ca.crt" \
  --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$work/sa.pub" \
  --service-account-signing-key-file "$work/sa.key" --authorization-mode RBAC --service-cluster-ip-range 10.96.0.0/16 \
  >"$work/kube-apiserver.log" 2>&1 &
for _ in $(seq 600); do kubectl get --raw /readyz >/dev/null 2>&1 && break; sleep 0.1; done
kubectl get --raw /readyz >/dev/null || fail "kube-apiserver does not answer"
"$cache/kube-controller-manager" --kubeconfig "$work/admin.yaml" --service-account-private-key-file "$work/sa.key" \
  --controllers garbage-collector-controller,namespace-controller,serviceaccount-controller --leader-elect=false \
  --bind-address 127.0.0.1 --secure-port "$manager" >"$work/kube-controller-manager.log" 2>&1 &
ok "a Kubernetes $version answers"

"$skep" install --kubeconfig "$work/admin.yaml" --reach "127.0.0.1:$hooks" 2>"$work/install.log" || fail "skep install"
kubectl wait crd --all --for condition=Established --timeout 60s >/dev/null || fail "the kinds are not established"
"$skep" install --kubeconfig "$work/admin.yaml" --reach "127.0.0.1:$hooks" 2>>"$work/install.log" || fail "skep install, once more"
ok "skep install puts in kinds, rights and webhooks, and may be run again"

# With no more rights than were granted, but for the lease.
start_controllers() {
  "$skep" controllers --kubeconfig "$work/controllers.yaml" --listen "127.0.0.1:$hooks" >>"$work/controllers.log" 2>&1 &
  controllers=$!
}
start_controllers
"$skep" sandbox --state "$work/cloud" --port "$cloud" >"$work/sandbox.log" 2>&1 &
for _ in $(seq 300); do [ -s "$work/cloud/clouds.yaml" ] && break; sleep 0.1; done
for _ in $(seq 300); do (echo >"/dev/tcp/127.0.0.1/$hooks") 2>/dev/null && break; sleep 0.1; done

kubectl create -f - <<'Y' >"$work/refused" 2>&1 && fail "a wrong version was taken"
apiVersion: cluster.x-k8s.io/v1beta2
kind: Machine
metadata: {name: wrong}
spec: {clusterName: demo, version: yesterday, bootstrap: {dataSecretName: x}, infrastructureRef: {apiGroup: x.example, kind: X, name: x}}
Y
grep -q 'spec.version: Invalid value: "vyesterday": must be a valid semantic version' "$work/refused" || fail "the refusal is: $(cat "$work/refused")"
ok "what is wrong is refused in the published words"

export OS_CLIENT_CONFIG_FILE=$work/cloud/clouds.yaml OS_CLOUD=skep-sandbox
"$skep" create cluster demo --kubernetes-version v1.34.2 --control-plane-machines 3 --worker-machines 2 --worker-flavor m1.small --image ubuntu-2404-kube >"$work/create.log" 2>&1 ||
  fail "skep create cluster: $(cat "$work/create.log")"
kubectl wait cluster/demo --for condition=Available --timeout 180s >/dev/null || fail "the cluster is not Available"
[ "$(kubectl get clusters.v1beta1.cluster.x-k8s.io demo -o jsonpath='{.status.infrastructureReady}')" = true ] || fail "v1beta1 does not say that the infrastructure is ready"
ok "a cluster becomes Available, and is told of in v1beta1 too"

# An app that nobody works on is enough to be counted.
kubectl create namespace org-watchers >/dev/null
kubectl create -f - >/dev/null <<'Y'
apiVersion: application.giantswarm.io/v1alpha1
kind: App
metadata: {name: watched, namespace: org-watchers, labels: {giantswarm.io/cluster: demo}, annotations: {app-operator.giantswarm.io/paused: "true"}}
spec: {catalog: default, name: hello-world, namespace: hello, version: 0.1.0, kubeConfig: {inCluster: false, secret: {name: k, namespace: org-watchers}}}
Y
kubectl create clusterrole metrics --verb get --non-resource-url /metrics >/dev/null
for account in reader other; do kubectl create serviceaccount "$account" -n org-watchers >/dev/null; done
kubectl create clusterrolebinding metrics --clusterrole metrics --serviceaccount org-watchers:reader >/dev/null
kubectl get secret skep-webhooks -n skep-system -o jsonpath='{.data.ca\.crt}' | base64 -d >"$work/webhooks.crt"
metrics() { curl -s --cacert "$work/webhooks.crt" -o "$work/metrics" -w '%{http_code}' "$@" "https://127.0.0.1:$hooks/metrics"; }
token() { kubectl create token "$1" -n org-watchers; }
[ "$(metrics)" = 401 ] || fail "metrics are for everybody"
[ "$(metrics -H "Authorization: Bearer $(token other)")" = 403 ] || fail "metrics are for every account: $(cat "$work/metrics")"
reader=$(token reader)
for _ in $(seq 100); do
  [ "$(metrics -H "Authorization: Bearer $reader")" = 200 ] || fail "who may read metrics does not get them: $(cat "$work/metrics")"
  ! grep -q '^app_operator_app_info{.*name="watched"' "$work/metrics" || break
  sleep 0.1
done
grep -q '^app_operator_app_info{.*name="watched"' "$work/metrics" && tail -n 1 "$work/metrics" | grep -qx '# EOF' || fail "the metrics are: $(cat "$work/metrics")"
kubectl delete app watched -n org-watchers >/dev/null
ok "metrics are for those who may read them"

kill -9 "$controllers"
wait "$controllers" 2>/dev/null || true
start_controllers
md=machinedeployment/demo-md-0
for _ in $(seq 300); do (echo >"/dev/tcp/127.0.0.1/$hooks") 2>/dev/null && break; sleep 0.1; done
kubectl scale $md --replicas 3 >/dev/null
kubectl wait $md --for jsonpath='{.status.readyReplicas}'=3 --timeout 180s >/dev/null || fail "there are not three workers"
ok "controllers that were killed go on, and workers scale"

"$skep" serve --state "$work/other" --listen 127.0.0.1:0 >"$work/other.log" 2>&1 &
for _ in $(seq 300); do grep -q "answers at" "$work/other.log" && break; sleep 0.1; done
uids=$(kubectl get openstackmachines -o jsonpath='{.items[*].spec.providerID}')
"$skep" move --kubeconfig "$work/admin.yaml" --to-kubeconfig "$work/other/kubeconfig" >"$work/move.log" 2>&1 || fail "skep move: $(cat "$work/move.log")"
kubectl --kubeconfig "$work/other/kubeconfig" wait cluster/demo --for condition=Available --timeout 180s >/dev/null || fail "the cluster that moved is not Available"
[ -z "$(kubectl get clusters,machines,kubeadmconfigs,openstackmachines --no-headers 2>/dev/null)" ] || fail "something is left after the move"
"$skep" move --kubeconfig "$work/other/kubeconfig" --to-kubeconfig "$work/admin.yaml" >"$work/move.log" 2>&1 || fail "skep move back: $(cat "$work/move.log")"
kubectl wait cluster/demo --for condition=Available --timeout 180s >/dev/null || fail "the cluster that came back is not Available"
[ "$(kubectl get openstackmachines -o jsonpath='{.items[*].spec.providerID}')" = "$uids" ] || fail "the servers are other ones after the moves"
ok "the cluster moves to a skep serve and back"

BESIDE=1 SKEP=$skep e2e/lifecycle.sh >"$work/lifecycle.out" 2>"$work/lifecycle.log" || { cat "$work/lifecycle.out"; fail "the day with kubectl: $(grep FAILED "$work/lifecycle.log")"; }
ok "$(tail -n 1 "$work/lifecycle.out")"
! grep -E "panicked|is forbidden" "$work/controllers.log" "$work/sandbox.log" || fail "the controllers lack a right, or panicked"
ok "the controllers have the rights that they need"
printf 'beside kube-apiserver: %s passed\n' "$passed"
