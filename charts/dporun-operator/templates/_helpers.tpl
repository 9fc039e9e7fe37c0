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

{{/* What spec of a pod needs to satisfy Pod Security "restricted". */}}
{{- define "dporun.podSecurityContext" -}}
{{- $restricted := dict "runAsNonRoot" true "runAsUser" 65532 "runAsGroup" 65532 "fsGroup" 65532 "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- mergeOverwrite $restricted (deepCopy .Values.podSecurityContext) | toYaml -}}
{{- end -}}

{{- define "dporun.securityContext" -}}
{{- $restricted := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- mergeOverwrite $restricted (deepCopy .Values.securityContext) | toYaml -}}
{{- end -}}

{{/* Rights in every namespace with runs. No Secrets: the kubelet mounts what a run names. */}}
{{- define "dporun.namespacedRules" -}}
- apiGroups: [dporun.io]
  resources: [dporuns]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [dporun.io]
  resources: [dporuns/status]
  verbs: [get, patch]
- apiGroups: [dporun.io]
  resources: [dporuns/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
- apiGroups: [""]
  resources: [pods/log, pods/proxy]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* Rights on objects without a namespace. */}}
{{- define "dporun.clusterRules" -}}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
# A namespace that is deleted with unarchived results: their volumes are kept.
- apiGroups: [""]
  resources: [persistentvolumes]
  verbs: [get, patch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [get, list, watch]
{{- end -}}
