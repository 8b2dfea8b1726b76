{{- /* Rules that are wanted, by the name of their policy: {policies: {name: [rule]}}. */ -}}
{{- define "policies" -}}
{{- $profiles := get (dict "none" list "baseline" (list "baseline") "restricted" (list "baseline" "restricted")) .Values.profile -}}
{{- if .Values.nonRootGroups -}}
{{- $profiles = append $profiles "groups" -}}
{{- end -}}
{{- $known := list -}}
{{- $policies := dict -}}
{{- range .Files.Get "files/policies.yaml" | fromYamlArray -}}
{{- $known = append $known .policy -}}
{{- if and (has .profile $profiles) (ne (get $.Values.failureActions .policy) "Ignore") -}}
{{- $_ := set $policies .policy (append (get $policies .policy | default list) .) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.failureActions -}}
{{- if not (has $name $known) -}}
{{- fail (printf "failureActions: there is no policy %s: they are %s" $name (join ", " ($known | uniq))) -}}
{{- end -}}
{{- end -}}
{{- dict "policies" $policies | toYaml -}}
{{- end -}}

{{- define "variables" -}}
- name: containers
  expression: >-
    object.spec.containers + object.spec.?initContainers.orValue([]) + object.spec.?ephemeralContainers.orValue([])
- name: contexts
  expression: >-
    [object.spec].filter(s, has(s.securityContext)).map(s, s.securityContext) +
    variables.containers.filter(c, has(c.securityContext)).map(c, c.securityContext)
{{- end -}}
