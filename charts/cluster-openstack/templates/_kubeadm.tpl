{{- /* What the nodes of all machines have in common. Arguments: the chart's root, and labels of the node. */ -}}
{{- define "registration" -}}
{{- $root := index . 0 -}}
{{- $flatcar := $root.Values.ignition.enable -}}
name: {{ ternary "${COREOS_OPENSTACK_HOSTNAME}" "{{ local_hostname }}" $flatcar | squote }}
kubeletExtraArgs:
  cloud-provider: external
  # The cloud controller is not needed for a machine to find its node.
  provider-id: {{ ternary "openstack:///${COREOS_OPENSTACK_INSTANCE_UUID}" "openstack:///'{{ instance_id }}'" $flatcar | quote }}
  eviction-hard: memory.available<200Mi
  eviction-soft: memory.available<500Mi
  eviction-soft-grace-period: memory.available=5s
  eviction-max-pod-grace-period: "60"
  {{- with index . 1 }}
  node-labels: {{ . | quote }}
  {{- end }}
{{- end -}}

{{- /* How a machine is configured: by cloud-init, or on Flatcar by Ignition. */ -}}
{{- define "format" -}}
{{- if .Values.ignition.enable -}}
format: ignition
ignition:
  containerLinuxConfig:
    additionalConfig: |
      systemd:
        units:
        - name: kubeadm.service
          enabled: true
          dropins:
          - name: 10-platform.conf
            contents: |
              [Unit]
              Requires=containerd.service coreos-metadata.service
              After=containerd.service coreos-metadata.service
              [Service]
              EnvironmentFile=/run/metadata/flatcar
{{- end -}}
{{- end -}}

{{- /* Ignition knows nothing of the machine, so what is known there is filled in when it starts. */ -}}
{{- define "commands" -}}
{{- if .Values.ignition.enable -}}
- export COREOS_OPENSTACK_HOSTNAME=${COREOS_OPENSTACK_HOSTNAME%.*}
- export COREOS_OPENSTACK_INSTANCE_UUID=${COREOS_OPENSTACK_INSTANCE_UUID}
- envsubst < /etc/kubeadm.yml > /etc/kubeadm.yml.tmp
- mv /etc/kubeadm.yml.tmp /etc/kubeadm.yml
{{- end -}}
{{- end -}}

{{- /* Who has a certificate of a trusted authority logs in as giantswarm, and nobody with a password. */ -}}
{{- define "ssh.files" -}}
{{- with .Values.sshTrustedUserCAKeys -}}
- path: /etc/ssh/trusted-user-ca-keys.pem
  permissions: "0600"
  content: |
    {{- range . }}
    {{ . }}
    {{- end }}
- path: /etc/ssh/sshd_config.d/10-platform.conf
  permissions: "0600"
  content: |
    {{- $.Files.Get "files/sshd.conf" | trim | nindent 4 }}
{{- end -}}
{{- end -}}

{{- define "ssh" -}}
{{- if .Values.sshTrustedUserCAKeys -}}
postKubeadmCommands:
  - systemctl try-restart ssh.service sshd.service
users:
  - name: giantswarm
    sudo: ALL=(ALL) NOPASSWD:ALL
{{- end -}}
{{- end -}}

{{- /* Spec of a KubeadmConfigTemplate's configurations. Arguments: the chart's root, and the pool's name. */ -}}
{{- define "join" -}}
{{- $root := index . 0 -}}
{{- with include "format" $root }}
{{- . }}
{{ end -}}
joinConfiguration:
  nodeRegistration:
    {{- include "registration" (list $root (printf "giantswarm.io/node-pool=%s" (index . 1))) | nindent 4 }}
{{- with include "ssh.files" $root }}
files:
  {{- . | nindent 2 }}
{{- end }}
{{- with include "commands" $root }}
preKubeadmCommands:
  {{- . | nindent 2 }}
{{- end }}
{{- with include "ssh" $root }}
{{ . }}
{{- end }}
{{- end -}}
