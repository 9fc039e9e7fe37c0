{{- define "dporun.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "dporun.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "dporun.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "dporun.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dporun.labels" -}}
{{ include "dporun.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: dporun
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Reference of an image: (dict "image" .Values.image "root" $) */}}
{{- define "dporun.image" -}}
{{- with .image -}}
{{- with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.root.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{/* Namespaces to watch, separated by commas; empty means the whole cluster. */}}
{{- define "dporun.namespaces" -}}
{{- if eq .Values.watch.mode "namespaces" -}}
{{- .Values.watch.namespaces | default (list .Release.Namespace) | uniq | join "," -}}
{{- end -}}
{{- end -}}

{{- define "dporun.leaseNamespace" -}}
{{- .Values.lease.namespace | default (ternary "kube-system" .Release.Namespace (eq .Values.watch.mode "cluster")) -}}
{{- end -}}

{{/* What spec of a pod needs to satisfy Pod Security "restricted". */}}
{{- define "dporun.podSecurityContext" -}}
{{- $restricted := dict "runAsNonRoot" true "runAsUser" 10001 "runAsGroup" 10001 "fsGroup" 10001 "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- mergeOverwrite $restricted (deepCopy .Values.podSecurityContext) | toYaml -}}
{{- end -}}

{{- define "dporun.securityContext" -}}
{{- $restricted := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- mergeOverwrite $restricted (deepCopy .Values.securityContext) | toYaml -}}
{{- end -}}

{{/* Rights in the namespaces with runs. None on Secrets: the kubelet mounts what a run names. */}}
{{- define "dporun.rules" -}}
- apiGroups: [dporun.io]
  resources: [dporuns]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [dporun.io]
  resources: [dporuns/status]
  verbs: [patch]
- apiGroups: [dporun.io]
  resources: [dporuns/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, create, patch, delete]
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
- apiGroups: [""]
  resources: [events]
  verbs: [create, list]
{{- end -}}
