{{- /* An image is told by its ID, or by its name. */ -}}
{{- define "image" -}}
{{- if regexMatch "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$" . -}}
id: {{ . }}
{{- else -}}
filter:
  name: {{ . | quote }}
{{- end -}}
{{- end -}}

{{- /* Spec of an OpenStackMachineTemplate's machines. Arguments: the chart's root, and the class. */ -}}
{{- define "machine" -}}
{{- $root := index . 0 -}}
{{- $class := index . 1 -}}
flavor: {{ $class.flavor | quote }}
image:
  {{- include "image" $class.image | nindent 2 }}
identityRef:
  name: {{ $root.Values.cloudConfig | quote }}
  cloudName: {{ $root.Values.cloudName | quote }}
{{- if $class.bootFromVolume }}
rootVolume:
  sizeGiB: {{ int $class.diskSize }}
{{- end }}
{{- end -}}

{{- define "machine.name" -}}
{{- $root := index . 0 -}}
{{- $root.Values.clusterName }}-{{ index . 1 }}-{{ include "revision" (printf "%s\n%s" (include "infrastructure" $root) (include "machine" (list $root (index . 2)))) -}}
{{- end -}}

{{- /* Node classes by name, and the control plane's. */ -}}
{{- define "classes" -}}
{{- $classes := include "byName" (list "nodeClasses" (.Values.nodeClasses | default dict)) | fromYaml -}}
{{- if hasKey $classes "control-plane" -}}
{{- fail "nodeClasses: control-plane is the name of the control plane's own class: use another" -}}
{{- end -}}
{{- $_ := set $classes "control-plane" (pick .Values.controlPlane "flavor" "image" "bootFromVolume" "diskSize") -}}
{{- toYaml $classes -}}
{{- end -}}

{{- define "pools" -}}
{{- $pools := include "byName" (list "nodePools" (.Values.nodePools | default dict)) | fromYaml -}}
{{- $classes := include "classes" . | fromYaml -}}
{{- range $name, $pool := $pools -}}
{{- if not (hasKey (omit $classes "control-plane") $pool.class) -}}
{{- fail (printf "nodePools: %s is of class %s, which is not in nodeClasses" $name $pool.class) -}}
{{- end -}}
{{- end -}}
{{- toYaml $pools -}}
{{- end -}}
