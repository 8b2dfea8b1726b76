#!/usr/bin/env bash
# Two servers over a real etcd of three members with TLS: the leader is killed while clients write, then a server; no acknowledged
# write is lost, and a watch that goes on where it was sees each change once and in order. Then backup, restore, and moves to a file
# and back. The last line counts.
set -euo pipefail
cd "$(dirname "$0")/.."
. e2e/lib
needs "several servers over etcd" etcd openssl curl kubectl
declare -A pid
now_ms() { date +%s%3N; }

# Below the ports that outgoing connections take.
base=$((20000 + RANDOM % 5000 * 2))
# An authority, one certificate for the members and one for the servers.
(
  cd "$work"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=etcd-ca -keyout ca.key -out ca.crt
  for name in member client; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$name.key" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -out "$name.crt" \
      -extfile <(printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n')
  done
) >/dev/null 2>&1

cluster=m0=https://127.0.0.1:$((base + 10)),m1=https://127.0.0.1:$((base + 11)),m2=https://127.0.0.1:$((base + 12))
member() {
  local client=https://127.0.0.1:$((base + $1)) peer=https://127.0.0.1:$((base + 10 + $1))
  etcd --name "m$1" --data-dir "$work/m$1" --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "$cluster" \
    --client-cert-auth --trusted-ca-file "$work/ca.crt" --cert-file "$work/member.crt" --key-file "$work/member.key" \
    --peer-client-cert-auth --peer-trusted-ca-file "$work/ca.crt" --peer-cert-file "$work/member.crt" --peer-key-file "$work/member.key" \
    --logger zap --log-level error >"$work/m$1.log" 2>&1 &
  pid[m$1]=$!
}
for i in 0 1 2; do member "$i"; done
endpoints=127.0.0.1:$base,127.0.0.1:$((base + 1)),127.0.0.1:$((base + 2))
place=etcd://$endpoints/skep
tls=(--etcd-ca "$work/ca.crt" --etcd-cert "$work/client.crt" --etcd-key "$work/client.key")

server() {
  "$skep" serve --state "$work/$1" --listen "127.0.0.1:$2" --store "$place" "${tls[@]}" >"$work/$1.log" 2>&1 &
  pid[$1]=$!
  for _ in $(seq 300); do
    grep -q "answers at" "$work/$1.log" && return
    kill -0 "${pid[$1]}" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}
server a $((base + 20)) || fail "the first server does not start"
server b $((base + 21)) && fail "a server with keys of its own starts"
grep -q "copy ca.crt, ca.key, sa.key" "$work/b.log" || fail "a server with keys of its own is not told what to do"
mkdir -p "$work/b" && cp "$work"/a/{ca.crt,ca.key,sa.key} "$work/b/"
server b $((base + 21)) || fail "the second server does not start"
ok "two servers of one installation; one with other keys is refused"

kube() { local one=$1; shift; KUBECONFIG=$work/$one/kubeconfig kubectl "$@"; }
kube a create configmap shared --from-literal=k=1 >/dev/null
[ "$(kube b get configmap shared --output jsonpath='{.data.k}')" = 1 ] || fail "what one server writes the other does not read"
kube b apply -f - >/dev/null <<'CRD'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.e2e.example.org}
spec:
  group: e2e.example.org
  scope: Namespaced
  names: {plural: things, kind: Thing}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
CRD
kube a wait crd/things.e2e.example.org --for=condition=Established --timeout=30s >/dev/null
kube a get things >/dev/null 2>&1 || fail "a CRD of one server is not served by the other"
token=$(kube a create token default)
kubectl --kubeconfig /dev/null --server "https://127.0.0.1:$((base + 21))" --certificate-authority "$work/b/ca.crt" --token "$token" \
  auth whoami --output jsonpath='{.status.userInfo.username}' | finds serviceaccount:default:default ||
  fail "a token of one server is not taken by the other"
ok "objects, kinds and tokens of one server are the other's"

holder() { kube "$1" get lease --namespace kube-system skep-controllers --output jsonpath='{.spec.holderIdentity}'; }
for _ in $(seq 100); do [ -n "$(holder a)" ] && break; sleep 0.1; done
[ -n "$(holder a)" ] || fail "nobody holds the controllers' lease"

# Writers and a watch by curl, with the administrator's certificate.
for part in client-certificate client-key; do
  kube a config view --raw --output jsonpath="{.users[0].user.$part-data}" | base64 -d >"$work/$part"
done
credentials=(--silent --cacert "$work/a/ca.crt" --cert "$work/client-certificate" --key "$work/client-key")
ask() { curl "${credentials[@]}" "$@"; }
urls=("https://127.0.0.1:$((base + 20))" "https://127.0.0.1:$((base + 21))")
writer() {
  local n=0 turn=$1 name code
  while [ ! -e "$work/stop" ]; do
    name=w-$1-$n
    # Until somebody says that it is made: the same name is made once.
    while :; do
      code=$(ask --max-time 30 --output /dev/null --write-out '%{http_code}' -X POST -H 'Content-Type: application/json' \
        --data "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"$name\"}}" \
        "${urls[$((turn % 2))]}/api/v1/namespaces/default/configmaps" || true)
      case $code in
        201 | 409) echo "$name" >>"$work/acknowledged-$1"; break ;;
        *) echo "$name $code" >>"$work/refused"; turn=$((turn + 1)); sleep 0.1 ;;
      esac
    done
    n=$((n + 1))
  done
}
watcher() {
  local turn=1 last=$1
  while [ ! -e "$work/stop-watch" ]; do
    curl "${credentials[@]}" --no-buffer "${urls[$((turn % 2))]}/api/v1/namespaces/default/configmaps?watch=true&resourceVersion=$last" >>"$work/events" &
    echo $! >"$work/watch.pid"
    wait $! || true
    last=$(grep -o '"resourceVersion":"[0-9]*"' "$work/events" | tail -n 1 | tr -dc 0-9)
    turn=$((turn + 1))
    sleep 0.1
  done
}
acknowledged() { cat "$work"/acknowledged-* 2>/dev/null | wc -l; }
more() { local goal=$(($(acknowledged) + $1)); for _ in $(seq 1200); do [ "$(acknowledged)" -ge "$goal" ] && return; sleep 0.05; done; fail "writing does not go on"; }
: >"$work/events"; : >"$work/refused"
from=$(kube a get --raw '/api/v1/namespaces/default/configmaps?limit=1' | grep -o '"resourceVersion":"[0-9]*"' | head -n 1 | tr -dc 0-9)
[ -n "$from" ] || fail "a list has no version"
watcher "$from" &
watching=$!
for i in 0 1 2 3; do writer "$i" & writers[i]=$!; done
more 100
leads=
"$skep" store check "$place" "${tls[@]}" >"$work/check.txt" || fail "the store is not in order: $(cat "$work/check.txt")"
for i in 0 1 2; do if grep -q "127.0.0.1:$((base + i)): .* leads" "$work/check.txt"; then leads=$i; fi; done
[ -n "$leads" ] || fail "no member leads: $(cat "$work/check.txt")"
began=$(now_ms)
kill -9 "${pid[m$leads]}"
more 10
printf '    etcd member %s led and was killed; ten more writes after %s ms\n' "$leads" $(($(now_ms) - began))
more 100
member "$leads"
more 100
# The server that the watch is at, and whose controllers may work.
kill -9 "${pid[b]}"
more 200
server b $((base + 21)) || fail "the second server does not come back"
more 100
touch "$work/stop"
wait "${writers[@]}"
total=$(acknowledged)
cat "$work"/acknowledged-* | sort >"$work/all"
[ -z "$(uniq -d "$work/all")" ] || fail "a name was acknowledged twice"
for one in a b; do
  kube "$one" get configmaps --no-headers --output custom-columns=N:.metadata.name | grep ^w- | sort >"$work/held"
  [ -z "$(comm -23 "$work/all" "$work/held")" ] || fail "server $one has lost: $(comm -23 "$work/all" "$work/held" | head -3)"
done
ok "a leader and a server were killed while $total writes were acknowledged: none is lost ($(wc -l <"$work/refused") were tried again)"

for _ in $(seq 200); do
  seen=$(grep -o '"name":"w-[0-9]*-[0-9]*"' "$work/events" | sort -u | wc -l)
  [ "$seen" -ge "$total" ] && break
  sleep 0.1
done
touch "$work/stop-watch"
kill "$(cat "$work/watch.pid")"
wait "$watching" || true
grep -q '"type":"ERROR"' "$work/events" && fail "the watch was told: $(grep '"type":"ERROR"' "$work/events" | head -1)"
sed -n 's/.*"name":"\(w-[^"]*\)".*/\1/p' "$work/events" | sort >"$work/seen"
[ -z "$(comm -23 "$work/all" "$work/seen")" ] || fail "the watch missed: $(comm -23 "$work/all" "$work/seen" | head -3)"
[ -z "$(uniq -d "$work/seen")" ] || fail "the watch showed twice: $(uniq -d "$work/seen" | head -3)"
grep '"type":"ADDED"' "$work/events" | grep -o '"resourceVersion":"[0-9]*"' | tr -dc '0-9\n' >"$work/versions"
sort -n -c "$work/versions" || fail "the watch showed changes out of order"
ok "a watch that changed servers showed each of them once, in order"

for _ in $(seq 300); do now=$(holder a); [ -n "$now" ] && break; sleep 0.1; done
[ -n "$now" ] || fail "nobody took the controllers over"
ok "the controllers' lease is held"

# Backups, and moves.
"$skep" store backup "$work/backup.skep" --from "$place" "${tls[@]}" >/dev/null || fail "no backup"
"$skep" store check "$work/backup.skep" >"$work/check.txt" || fail "the backup is not in order: $(cat "$work/check.txt")"
grep -q "nothing is wrong" "$work/check.txt"
"$skep" store backup "$work/past.skep" --from "$place" "${tls[@]}" --revision "$from" >/dev/null || fail "no backup of the past"
"$skep" store check "$work/past.skep" >"$work/past.txt" || fail "the backup of the past is not in order: $(cat "$work/past.txt")"
grep -q "at revision $from$" "$work/past.txt" || fail "the backup is not of revision $from: $(cat "$work/past.txt")"
cp "$work/backup.skep" "$work/broken.skep"
at=$({ grep -abo '"name":"w-' "$work/broken.skep" || true; } | sed -n '1s/:.*//p')
printf X | dd of="$work/broken.skep" bs=1 seek=$((at + 8)) conv=notrunc 2>/dev/null
"$skep" store check "$work/broken.skep" >"$work/broken.txt" && fail "a backup that was changed passes"
grep -q "the seal does not hold" "$work/broken.txt" || fail "it is not said what is wrong: $(cat "$work/broken.txt")"
"$skep" store restore "$work/broken.skep" --to "$work/never.db" 2>/dev/null && fail "a backup that was changed is restored"
objects=$(sed -n 's/.*: \([0-9]*\) objects, .*/\1/p' "$work/check.txt")
kube a get configmaps --output yaml | grep -v "resourceVersion:" >"$work/before.yaml"
kube a get configmaps --output yaml | grep "resourceVersion:" >"$work/before.versions"
for one in a b; do kill "${pid[$one]}"; wait "${pid[$one]}" || fail "server $one does not end well"; done
"$skep" store migrate --from "$place" "${tls[@]}" --to "$work/moved.db" >/dev/null || fail "etcd is not moved to a file"
file_server() {
  "$skep" serve --state "$work/a" --listen "127.0.0.1:$((base + 20))" --store "$1" --no-controllers >"$work/a.log" 2>&1 &
  pid[a]=$!
  for _ in $(seq 300); do grep -q "answers at" "$work/a.log" && return; sleep 0.1; done
  fail "no server over $1"
}
unchanged() { kube a get configmaps --output yaml | grep -v "resourceVersion:" | diff -q - "$work/before.yaml" >/dev/null || fail "$1"; }
file_server "$work/moved.db"
unchanged "etcd moved to a file is not the same"
kube a get configmaps --output yaml | grep "resourceVersion:" | head -n -1 | diff -q - <(head -n -1 "$work/before.versions") >/dev/null ||
  fail "resource versions are others in the file"
"$skep" store backup "$work/online.skep" --from "$work/moved.db" >/dev/null || fail "no backup of a file that is in use"
"$skep" store migrate --from "$work/moved.db" --to "$place" "${tls[@]}" 2>"$work/refused.txt" && fail "a file that is in use is moved"
kill "${pid[a]}"; wait "${pid[a]}" || true
"$skep" store check "$work/moved.db" >/dev/null || fail "the file is not in order"
"$skep" store migrate --from "$work/moved.db" --to "$place" "${tls[@]}" 2>"$work/refused.txt" && fail "what is in etcd is written over unasked"
grep -q -- --replace "$work/refused.txt"
"$skep" store migrate --from "$work/moved.db" --to "$place" "${tls[@]}" --replace >/dev/null || fail "a file is not moved to etcd"
server a $((base + 20)) || fail "no server over what was moved to etcd"
unchanged "a file moved to etcd is not the same"
kill "${pid[a]}"; wait "${pid[a]}" || true
ok "$objects objects moved to a file and back are the same"
"$skep" store restore "$work/backup.skep" --to "$place" "${tls[@]}" --replace >/dev/null || fail "the backup is not restored to etcd"
server a $((base + 20)) || fail "no server over what was restored"
unchanged "what was restored to etcd is not the same"
kill "${pid[a]}"; wait "${pid[a]}" || true
"$skep" store restore "$work/backup.skep" --to "$work/restored.db" >/dev/null || fail "the backup is not restored to a file"
file_server "$work/restored.db"
unchanged "what was restored to a file is not the same"
kill "${pid[a]}"; wait "${pid[a]}" || true
ok "a backup taken while servers wrote is restored to etcd and to a file"
echo "etcd: $passed passed, 0 failed"
