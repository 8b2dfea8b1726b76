{{- define "bundle.labels" -}}
{{ include "labels" . }}
giantswarm.io/cluster: {{ .Values.clusterName | quote }}
giantswarm.io/managed-by: {{ .Release.Name | quote }}
giantswarm.io/organization: {{ .Values.organization | quote }}
{{- end -}}

{{- /* What is the cluster's in the cloud is called so; it is also the tag of its network. */ -}}
{{- define "cloud.name" -}}
{{- with .Values.managementCluster -}}
giant_swarm_cluster_{{ . }}_{{ $.Values.clusterName }}
{{- else -}}
{{ .Values.clusterName }}
{{- end -}}
{{- end -}}

{{- /* References to a ConfigMap and a Secret. Arguments: namespace, name of the ConfigMap, name of the Secret; empty ones are left out. */ -}}
{{- define "references" -}}
{{- $namespace := index . 0 -}}
{{- with index . 1 }}
configMap:
  name: {{ . }}
  namespace: {{ $namespace }}
{{- end }}
{{- with index . 2 }}
secret:
  name: {{ . }}
  namespace: {{ $namespace }}
{{- end }}
{{- end -}}
