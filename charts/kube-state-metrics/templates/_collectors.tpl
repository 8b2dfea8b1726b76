{{- /* The collectors that are wanted, with their groups. */ -}}
{{- define "collectors" -}}
{{- $wanted := dict -}}
{{- range $kind, $group := .Values.collectors -}}
{{- if not (kindIs "invalid" $group) -}}
{{- $_ := set $wanted $kind $group -}}
{{- end -}}
{{- end -}}
{{- if not $wanted -}}
{{- fail "collectors: there are none, and so no metrics" -}}
{{- end -}}
{{- range $kind, $_ := merge dict .Values.metricLabelsAllowlist .Values.metricAnnotationsAllowList -}}
{{- if not (hasKey $wanted $kind) -}}
{{- fail (printf "metricLabelsAllowlist, metricAnnotationsAllowList: %s is not in collectors" $kind) -}}
{{- end -}}
{{- end -}}
{{- toYaml $wanted -}}
{{- end -}}
