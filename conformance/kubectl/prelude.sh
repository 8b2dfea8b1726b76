# Read before each step.

# What runs beside ends with the step.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

# until_seen FILE TEXT: waits until a program that runs beside has written TEXT.
until_seen() {
  local n=0
  until grep -qF -- "$2" "$1" 2>/dev/null; do
    n=$((n + 1))
    [ "$n" -lt 300 ] || { echo "no $2 in: $(cat "$1")" >&2; return 1; }
    sleep 0.05
  done
}

# until_is TEXT COMMAND...: waits until the command prints just that.
until_is() {
  local want=$1 got n=0
  shift
  until got=$("$@" 2>&1) && [ "$got" = "$want" ]; do
    n=$((n + 1))
    [ "$n" -lt 200 ] || { echo "not $want but $got" >&2; return 1; }
    sleep 0.1
  done
}

# until_gone KIND/NAME...: waits until they are not there.
until_gone() {
  local one n=0
  for one in "$@"; do
    while kubectl get "$one" >/dev/null 2>&1; do
      n=$((n + 1))
      [ "$n" -lt 400 ] || { echo "$one is still there" >&2; return 1; }
      sleep 0.1
    done
  done
}

# uid KIND NAME
uid() { kubectl get "$1" "$2" -o jsonpath='{.metadata.uid}'; }

# owned NAME OWNER BLOCK: a config map that a config map owns.
owned() {
  kubectl create -f - <<END
apiVersion: v1
kind: ConfigMap
metadata:
  name: $1
  ownerReferences:
  - {apiVersion: v1, kind: ConfigMap, name: $2, uid: $(uid configmap "$2"), blockOwnerDeletion: $3}
END
}
