{{- define "component.labels" -}}
{{ include "labels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "component.selector" -}}
{{ include "selector" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* What both workloads' pods have in common, up to their arguments. Arguments: root, component, arguments. */ -}}
{{- define "container" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
name: cert-exporter
image: {{ printf "%s/%s:%s" $root.Values.registry.domain $root.Values.image.repository ($root.Values.image.tag | default $root.Chart.AppVersion) }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args:
  {{- range concat (list (printf "--address=:%d" (int $root.Values.port))) (index . 2) }}
  - {{ . | quote }}
  {{- end }}
ports:
  - name: metrics
    containerPort: {{ int $root.Values.port }}
livenessProbe:
  httpGet:
    path: /metrics
    port: metrics
  periodSeconds: 30
  timeoutSeconds: 10
resources:
  {{- toYaml (get $root.Values $component).resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop:
      - ALL
{{- end -}}

{{- define "pod" -}}
serviceAccountName: cert-exporter-{{ index . 1 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  seccompProfile:
    type: RuntimeDefault
{{- with (index . 0).Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
