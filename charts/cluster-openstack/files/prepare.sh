#!/bin/sh
# What kubeadm is told and Cluster API has no field for. Argument: the part of the machine that the API server asks for, as 1/N.
set -eu
ratio=$1
cpus=$(nproc)
memory_mib=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)

# The API server's share of the machine, and as many requests at once as fit to it.
mkdir -p /etc/kubernetes/patches
cat >/etc/kubernetes/patches/kube-apiserver0+json.json <<PATCH
[
  {"op": "add", "path": "/spec/containers/0/command/-", "value": "--max-requests-inflight=$((cpus * 1600 / ratio))"},
  {"op": "add", "path": "/spec/containers/0/command/-", "value": "--max-mutating-requests-inflight=$((cpus * 800 / ratio))"},
  {"op": "add", "path": "/spec/containers/0/resources/requests/cpu", "value": "$((cpus * 1000 / ratio))m"},
  {"op": "add", "path": "/spec/containers/0/resources/requests/memory", "value": "$((memory_mib / ratio))Mi"}
]
PATCH

# kubeadm reads the configuration of kube-proxy where it makes a cluster, not where it joins one.
for file in /run/kubeadm/kubeadm.yaml /etc/kubeadm.yml; do
  if grep -qs '^kind: ClusterConfiguration' "$file" && ! grep -qs '^kind: KubeProxyConfiguration' "$file"; then
    cat /etc/kubernetes/kube-proxy.yaml >>"$file"
  fi
done
