#!/usr/bin/env bash
# A server over its file is killed (SIGKILL) while clients write, again and again, and its disk becomes full and has room again:
# no acknowledged write is lost, versions only rise, and a client is told what is wrong. The last line counts.
set -euo pipefail
cd "$(dirname "$0")/.."
. e2e/lib
needs "faults under a server" curl kubectl unshare
server=
port=$((20000 + RANDOM % 12000))
url=https://127.0.0.1:$port

ready() {
  for _ in $(seq 300); do
    grep -q "answers at" "$work/server.log" && return
    kill -0 "$server" 2>/dev/null || fail "the server does not start"
    sleep 0.1
  done
  fail "the server does not start"
}
start() {
  "$skep" serve --state "$work/state" --listen "127.0.0.1:$port" --no-controllers >"$work/server.log" 2>&1 &
  server=$!
  ready
}
credentials() {
  for part in client-certificate client-key; do
    KUBECONFIG=$1/kubeconfig kubectl config view --raw --output jsonpath="{.users[0].user.$part-data}" | base64 -d >"$work/$part"
  done
  curl=(curl --silent --cacert "$1/ca.crt" --cert "$work/client-certificate" --key "$work/client-key")
}
maps=$url/api/v1/namespaces/default/configmaps
# Name, version and body of the answer, of a new object.
create() {
  "${curl[@]}" --max-time 20 --write-out '\n%{http_code}\n' -X POST -H 'Content-Type: application/json' --data @- "$maps" <<<"$1" || true
}
version() { grep -o '"resourceVersion":"[0-9]*"' | head -n 1 | tr -dc 0-9; }
writer() {
  local n=0 answer
  while [ ! -e "$work/stop" ]; do
    answer=$(create "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"w-$1-$n-$RANDOM\"}}")
    if [ "$(tail -n 1 <<<"$answer")" = 201 ]; then
      printf '%s %s\n' "$(grep -o '"name":"w-[^"]*"' <<<"$answer" | cut -d'"' -f4)" "$(version <<<"$answer")" >>"$work/acknowledged-$1"
    else
      sleep 0.05
    fi
    n=$((n + 1))
  done
}
acknowledged() { cat "$work"/acknowledged-* 2>/dev/null | wc -l; }
start
credentials "$work/state"
: >"$work/acknowledged-0"
writers=()
for i in 0 1 2 3; do writer "$i" & writers+=($!); done
kills=8
for _ in $(seq "$kills"); do
  goal=$(($(acknowledged) + 40))
  for _ in $(seq 600); do [ "$(acknowledged)" -ge "$goal" ] && break; sleep 0.05; done
  [ "$(acknowledged)" -ge "$goal" ] || fail "writing does not go on"
  kill -9 "$server"
  wait "$server" 2>/dev/null || true
  start
done
touch "$work/stop"
wait "${writers[@]}"
"${curl[@]}" "$maps" >"$work/list.json"
grep -o '"metadata":{[^}]*"name":"w-[^}]*' "$work/list.json" |
  sed -n 's/.*"name":"\(w-[^"]*\)".*"resourceVersion":"\([0-9]*\)".*/\1 \2/p' | sort >"$work/held"
[ -s "$work/held" ] || sed 's/},{/}\n{/g' "$work/list.json" | sed -n 's/.*"resourceVersion":"\([0-9]*\)".*"name":"\(w-[^"]*\)".*/\2 \1/p' | sort >"$work/held"
cat "$work"/acknowledged-* | sort >"$work/all"
[ -z "$(comm -23 "$work/all" "$work/held")" ] || fail "lost, or at another version: $(comm -23 "$work/all" "$work/held" | head -3)"
[ -z "$(cut -d' ' -f2 "$work/held" | sort | uniq -d)" ] || fail "two writes have one version"
for i in 0 1 2 3; do cut -d' ' -f2 "$work/acknowledged-$i" | sort -n -c || fail "versions went back"; done
kill "$server"; wait "$server" || fail "the server does not end well"
"$skep" store check "$work/state/management.db" >"$work/check.txt" || fail "the store is not in order: $(cat "$work/check.txt")"
ok "killed $kills times in a storm of writes: $(wc -l <"$work/all") acknowledged, all there at their versions"

# A disk of 24 MiB, on which something else takes 8.
if ! unshare --user --map-root-user --mount true 2>/dev/null; then
  echo "faults: $passed passed, 0 failed"
  skip "a full disk: this machine lets nobody mount a file system of his own"
fi
mkdir "$work/disk"
unshare --user --map-root-user --mount bash -c '
  mount -t tmpfs -o size=24m tmpfs "$1" && head -c 8388608 /dev/zero >"$1/ballast" && mkdir "$1/state"
  # The folder is seen in here only: what the other side needs goes through the door.
  ( while [ ! -e "$4/room" ]; do sleep 0.1; done; rm "$1/ballast"; touch "$4/made" ) &
  ( while [ ! -e "$1/state/kubeconfig" ]; do sleep 0.1; done; sleep 0.2; mkdir -p "$4/copy"; cp "$1/state/kubeconfig" "$1/state/ca.crt" "$4/copy/" ) &
  exec "$2" serve --state "$1/state" --listen "127.0.0.1:$3" --no-controllers' \
  bash "$work/disk" "$skep" "$port" "$work" >"$work/server.log" 2>&1 &
server=$!
ready
for _ in $(seq 100); do [ -e "$work/copy/ca.crt" ] && break; sleep 0.1; done
credentials "$work/copy"
text=$(head -c 400000 /dev/zero | tr '\0' x)
made=0
for n in $(seq 100); do
  answer=$(create "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"f-$n\"},\"data\":{\"k\":\"$text\"}}")
  [ "$(tail -n 1 <<<"$answer")" = 201 ] || break
  made=$n
done
code=$(tail -n 1 <<<"$answer")
[ "$made" -gt 5 ] && [ "$code" = 500 ] || fail "a full disk: $made made, then $code $(head -c 300 <<<"$answer")"
grep -q "full" <<<"$answer" || fail "it is not said that the disk is full: $(head -c 300 <<<"$answer")"
said=$(grep -o '"message":"[^"]*"' <<<"$answer" | head -n 1)
[ "$("${curl[@]}" --output /dev/null --write-out '%{http_code}' "$maps/f-1")" = 200 ] || fail "reads do not go on"
touch "$work/room"
for _ in $(seq 100); do [ -e "$work/made" ] && break; sleep 0.1; done
answer=$(create "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"after\"},\"data\":{\"k\":\"$text\"}}")
[ "$(tail -n 1 <<<"$answer")" = 201 ] || fail "writing does not go on when there is room: $(head -c 300 <<<"$answer")"
held=$("${curl[@]}" "$maps" | grep -o '"name":"f-[0-9]*"' | sort -u | wc -l)
[ "$held" = "$made" ] || fail "$made were acknowledged, $held are there"
ok "a disk that was full after $made objects: 500, $said; reads went on, and writes when there was room"
kill "$server"; wait "$server" || true
echo "faults: $passed passed, 0 failed"
