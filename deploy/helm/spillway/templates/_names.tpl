{{- define "spillway.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "spillway.selector" -}}
app.kubernetes.io/name: spillway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "spillway.labels" -}}
{{ include "spillway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "spillway.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What was said, or where the `kubernetes` Service is now. */ -}}
{{- define "spillway.apiserver" -}}
{{- if .Values.apiserver.address }}{{ .Values.apiserver.address }}
{{- else }}
{{- $service := lookup "v1" "Service" "default" "kubernetes" }}
{{- if $service }}
{{- $ip := $service.spec.clusterIP }}
{{- if contains ":" $ip }}[{{ $ip }}]{{ else }}{{ $ip }}{{ end }}:443
{{- else }}{{ fail "apiserver.address: nothing can be looked up here; give IP:PORT, for example from: kubectl get service kubernetes" }}
{{- end }}
{{- end }}
{{- end }}
