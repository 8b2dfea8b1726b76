{{- define "infrastructure" -}}
infrastructure.cluster.x-k8s.io/v1beta1
{{- end -}}

{{- define "cluster.labels" -}}
{{ include "labels" . }}
{{ include "machine.labels" . }}
{{- end -}}

{{- /* Without the chart's version: machines are not to be replaced because the chart was. */ -}}
{{- define "machine.labels" -}}
cluster.x-k8s.io/cluster-name: {{ .Values.clusterName | quote }}
giantswarm.io/cluster: {{ .Values.clusterName | quote }}
giantswarm.io/organization: {{ .Values.organization | quote }}
{{- end -}}

{{- define "version" -}}
v{{ .Values.kubernetesVersion | trimPrefix "v" }}
{{- end -}}

{{- /* Templates of machines cannot change: another content is another name, and with it a rollout. */ -}}
{{- define "revision" -}}
{{ sha1sum . | trunc 8 }}
{{- end -}}

{{- /* What is a list with names, or a map by name, as a map by name. Arguments: what it is called, and itself. */ -}}
{{- define "byName" -}}
{{- $named := dict -}}
{{- $all := index . 1 -}}
{{- if kindIs "map" $all -}}
{{- $named = $all -}}
{{- else -}}
{{- $called := index . 0 -}}
{{- range $all -}}
{{- if hasKey $named .name -}}
{{- fail (printf "%s: two are called %s" $called .name) -}}
{{- end -}}
{{- $_ := set $named .name . -}}
{{- end -}}
{{- end -}}
{{- toYaml $named -}}
{{- end -}}
