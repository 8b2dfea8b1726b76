#!/usr/bin/env bash
# The charts of charts/: each is linted by the stock helm and rendered by it and by ours, byte for byte the same, with its default values
# and with those of ci/*-values.yaml, for a cluster with and without the APIs of others; what stands in ci/refused/ is refused by
# both, and each says what the first line of the file names. A chart that needs values has ci/refused/defaults.yaml.
#   SKEP=... e2e/charts.sh [CHART...]
# Exit: 3 there is no Go to build helm with.
set -euo pipefail
cd "$(dirname "$0")/.."
skep=${SKEP:-$PWD/target/release/skep}
helm=$(conformance/helm/build helm)
work=$(mktemp -d)
cleanup() {
  local code=$?
  kill $(jobs -p) 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
  exit "$code"
}
trap cleanup EXIT
passed=0
ok() { passed=$((passed + 1)); printf 'ok  %s (%s s)\n' "$1" "$SECONDS"; }
fail() { printf 'FAILED  %s\n' "$1" >&2; exit 1; }
export HELM_CACHE_HOME=$work HELM_CONFIG_HOME=$work HELM_DATA_HOME=$work

charts=("$@")
[ $# -gt 0 ] || mapfile -t charts < <(cd charts && printf '%s\n' */Chart.yaml | xargs -n 1 dirname)
others=()
for api in kyverno.io/v1 kyverno.io/v2 cilium.io/v2 monitoring.coreos.com/v1; do others+=(--api-versions "$api"); done

# render WHO CHART ARGUMENTS...: hooks that hold what chance gives cannot be compared.
render() {
  local who=$1 chart=$2
  shift 2
  "$who" template demo "charts/$chart" --namespace kube-system --kube-version v1.34.2 --no-hooks "$@"
}
for chart in "${charts[@]}"; do
  folder=charts/$chart
  [ "$(sed -n 's/^name: //p' "$folder/Chart.yaml")" = "$chart" ] || fail "$chart: Chart.yaml has another name"
  for file in _labels.tpl servicemonitor.yaml; do
    [ ! -e "$folder/templates/$file" ] || cmp -s "$folder/templates/$file" "charts/node-exporter/templates/$file" || fail "$chart: $file is not that of the others"
  done
  for file in README.md values.yaml values.schema.json .helmignore; do [ -e "$folder/$file" ] || fail "$chart: no $file"; done
  sets=("$folder"/ci/*-values.yaml)
  [ -e "${sets[0]}" ] || fail "$chart: no ci/*-values.yaml"
  [ -e "$folder/ci/refused/defaults.yaml" ] || sets+=("$folder/values.yaml")
  for values in "${sets[@]}"; do
    "$helm" lint --strict "$folder" -f "$values" >"$work/lint" 2>&1 || { cat "$work/lint" >&2; fail "$chart: helm lint with $values"; }
    for apis in none all; do
      with=(); [ "$apis" = none ] || with=("${others[@]}")
      render "$helm" "$chart" -f "$values" "${with[@]}" >"$work/theirs" 2>"$work/error" || { cat "$work/error" >&2; fail "$chart: helm template with $values"; }
      ! grep -q warning: "$work/error" || { cat "$work/error" >&2; fail "$chart: helm warns of $values"; }
      render "$skep" "$chart" -f "$values" "${with[@]}" >"$work/ours" 2>"$work/error" || { cat "$work/error" >&2; fail "$chart: skep template with $values"; }
      cmp "$work/theirs" "$work/ours" || { diff "$work/theirs" "$work/ours" | head -n 20 >&2 || true; fail "$chart: what becomes of $values differs"; }
      grep -q '^kind: ' "$work/ours" || [ "$apis" = none ] || fail "$chart: nothing comes of $values"
    done
  done
  ok "$chart: the same by helm and by ours with ${#sets[@]} sets of values"
  refused=("$folder"/ci/refused/*.yaml)
  [ -e "${refused[0]}" ] || fail "$chart: no ci/refused/*.yaml"
  for values in "${refused[@]}"; do
    said=$(sed -n '1s/^# //p' "$values")
    [ -n "$said" ] || fail "$values: no first line that says what is told"
    for who in "$helm" "$skep"; do
      if render "$who" "$chart" -f "$values" >/dev/null 2>"$work/error"; then fail "$values: $(basename "$who") takes it"; fi
      grep -qF -- "$said" "$work/error" || { cat "$work/error" >&2; fail "$values: $(basename "$who") does not say '$said'"; }
    done
  done
  ok "$chart: ${#refused[@]} sets of bad values are refused"
done
printf 'charts: %s passed\n' "$passed"
