{{- /* What each policy allows, as the rest of a NetworkPolicy's spec. */ -}}

{{- define "denyByDefault" -}}
policyTypes:
  - Ingress
  - Egress
{{- end -}}

{{- define "allowSameNamespace" -}}
policyTypes:
  - Ingress
  - Egress
ingress:
  - from:
      - podSelector: {}
egress:
  - to:
      - podSelector: {}
{{- end -}}

{{- define "allowEgressToDNS" -}}
policyTypes:
  - Egress
egress:
  - to:
      - namespaceSelector:
          matchLabels:
            kubernetes.io/metadata.name: {{ .server.namespace }}
        podSelector:
          matchExpressions:
            {{- range $key, $values := .server.labels }}
            - key: {{ $key }}
              operator: In
              values:
                {{- toYaml $values | nindent 16 }}
            {{- end }}
    ports:
      {{- range $port := .ports }}
      {{- range list "UDP" "TCP" }}
      - port: {{ int $port }}
        protocol: {{ . }}
      {{- end }}
      {{- end }}
{{- end -}}

{{- define "allowEgressToAPIServer" -}}
policyTypes:
  - Egress
egress:
  - ports:
      {{- range .ports }}
      - port: {{ int . }}
        protocol: TCP
      {{- end }}
    {{- with .cidrs }}
    to:
      {{- range . }}
      - ipBlock:
          cidr: {{ . | quote }}
      {{- end }}
    {{- end }}
{{- end -}}
