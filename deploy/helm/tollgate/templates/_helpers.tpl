{{- define "tollgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tollgate.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "tollgate.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "tollgate.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tollgate.selector" -}}
app.kubernetes.io/name: {{ include "tollgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tollgate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "tollgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "tollgate.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "tollgate.policyConfigMap" -}}
{{- if .Values.policy.document }}
{{- printf "%s-policy" (include "tollgate.fullname" .) }}
{{- else }}
{{- .Values.policy.configMap }}
{{- end }}
{{- end }}

{{- define "tollgate.scheme" -}}
{{- ternary "https" "http" (ne .Values.tls.secret "") }}
{{- end }}

{{- /* Each setting as a variable: a list has commas, and a comma alone is the empty one. */}}
{{- define "tollgate.env" -}}
- { name: TOLLGATE_LISTEN, value: "[::]:50051" }
- { name: TOLLGATE_ADMIN, value: "[::]:8081" }
{{- if .Values.policy.directory }}
- { name: TOLLGATE_POLICY_DIRECTORY, value: /etc/tollgate/policy }
{{- else }}
- { name: TOLLGATE_POLICY, value: /etc/tollgate/policy/{{ .Values.policy.key }} }
{{- end }}
- { name: TOLLGATE_DRAIN_TIMEOUT, value: {{ printf "%ds" (int .Values.drainSeconds) }} }
- { name: TOLLGATE_LOG_FORMAT, value: {{ default "json" .Values.settings.log_format }} }
# The only place that can be written to.
- { name: TMPDIR, value: /var/lib/tollgate }
{{- if .Values.settingsFile }}
- { name: TOLLGATE_CONFIG, value: /etc/tollgate/settings/tollgate.toml }
{{- end }}
{{- if eq .Values.store.kind "redis" }}
- { name: TOLLGATE_STORE, value: {{ .Values.store.redis.url | quote }} }
- { name: TOLLGATE_REQUIRE_SAFE_REDIS, value: {{ .Values.store.redis.requireSafe | quote }} }
{{- if .Values.store.redis.passwordSecret.name }}
- { name: TOLLGATE_REDIS_PASSWORD_FILE, value: /etc/tollgate/redis/password }
{{- end }}
{{- if .Values.store.redis.spool.size }}
- { name: TOLLGATE_SPOOL_DIRECTORY, value: /var/lib/tollgate/spool }
{{- end }}
{{- else }}
- { name: TOLLGATE_STORE, value: "embedded:/var/lib/tollgate/data" }
{{- end }}
{{- if .Values.tls.secret }}
- { name: TOLLGATE_TLS_CERT_FILE, value: /etc/tollgate/tls/tls.crt }
- { name: TOLLGATE_TLS_KEY_FILE, value: /etc/tollgate/tls/tls.key }
{{- if .Values.tls.clientCaSecret }}
- { name: TOLLGATE_TLS_CLIENT_CA_FILE, value: /etc/tollgate/client-ca/ca.crt }
- { name: TOLLGATE_TLS_CLIENT_AUTH, value: {{ .Values.tls.clientAuth }} }
{{- end }}
{{- else }}
- { name: TOLLGATE_ALLOW_INSECURE_LISTEN, value: "true" }
{{- end }}
{{- if .Values.allowUnauthenticated }}
- { name: TOLLGATE_ALLOW_UNAUTHENTICATED_LISTEN, value: "true" }
{{- end }}
{{- with .Values.console }}
- { name: TOLLGATE_CONSOLE_ENABLED, value: {{ .enabled | quote }} }
{{- if .enabled }}
{{- with .url }}
- { name: TOLLGATE_CONSOLE_URL, value: {{ . | quote }} }
{{- end }}
{{- if .oidc.issuer }}
- { name: TOLLGATE_CONSOLE_OIDC_ISSUER, value: {{ .oidc.issuer | quote }} }
- { name: TOLLGATE_CONSOLE_OIDC_CLIENT_ID, value: {{ .oidc.clientId | quote }} }
- { name: TOLLGATE_CONSOLE_OIDC_SCOPES, value: {{ join "," .oidc.scopes | quote }} }
{{- if .oidc.clientSecret.name }}
- { name: TOLLGATE_CONSOLE_OIDC_CLIENT_SECRET_FILE, value: /etc/tollgate/oidc/client-secret }
{{- end }}
{{- end }}
{{- if .sessionKeys.name }}
{{- $files := list }}
{{- range .sessionKeys.keys }}
{{- $files = append $files (printf "/etc/tollgate/session/%s" .) }}
{{- end }}
- { name: TOLLGATE_CONSOLE_SESSION_KEY_FILES, value: {{ join "," $files | quote }} }
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := omit .Values.settings "log_format" }}
{{- $text := toString $value }}
{{- if kindIs "slice" $value }}
{{- $text = join "," $value | default "," }}
{{- else if kindIs "float64" $value }}
{{- $text = printf "%.0f" $value }}
{{- end }}
- { name: TOLLGATE_{{ upper $name }}, value: {{ $text | quote }} }
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tollgate.mounts" -}}
- { name: state, mountPath: /var/lib/tollgate }
# As directories: a file that is mounted alone would never change.
- { name: policy, mountPath: /etc/tollgate/policy, readOnly: true }
{{- if .Values.settingsFile }}
- { name: settings, mountPath: /etc/tollgate/settings, readOnly: true }
{{- end }}
{{- if .Values.tls.secret }}
- { name: tls, mountPath: /etc/tollgate/tls, readOnly: true }
{{- if .Values.tls.clientCaSecret }}
- { name: client-ca, mountPath: /etc/tollgate/client-ca, readOnly: true }
{{- end }}
{{- end }}
{{- if and (eq .Values.store.kind "redis") .Values.store.redis.passwordSecret.name }}
- { name: redis, mountPath: /etc/tollgate/redis, readOnly: true }
{{- end }}
{{- if .Values.groqKeysSecret }}
- { name: groq, mountPath: /etc/tollgate/groq, readOnly: true }
{{- end }}
{{- if and .Values.console.enabled .Values.console.oidc.issuer .Values.console.oidc.clientSecret.name }}
- { name: oidc, mountPath: /etc/tollgate/oidc, readOnly: true }
{{- end }}
{{- if and .Values.console.enabled .Values.console.sessionKeys.name }}
- { name: session, mountPath: /etc/tollgate/session, readOnly: true }
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* 288 is 0440: for the group of the pod, fsGroup. */}}
{{- define "tollgate.volumes" -}}
- name: policy
  configMap: { name: {{ include "tollgate.policyConfigMap" . }} }
{{- if .Values.settingsFile }}
- name: settings
  configMap: { name: {{ include "tollgate.fullname" . }}-settings }
{{- end }}
{{- if .Values.tls.secret }}
- name: tls
  secret: { secretName: {{ .Values.tls.secret }}, defaultMode: 288 }
{{- if .Values.tls.clientCaSecret }}
- name: client-ca
  secret: { secretName: {{ .Values.tls.clientCaSecret }}, defaultMode: 288, items: [{ key: ca.crt, path: ca.crt }] }
{{- end }}
{{- end }}
{{- with .Values.store.redis.passwordSecret }}
{{- if and (eq $.Values.store.kind "redis") .name }}
- name: redis
  secret: { secretName: {{ .name }}, defaultMode: 288, items: [{ key: {{ .key }}, path: password }] }
{{- end }}
{{- end }}
{{- with .Values.groqKeysSecret }}
- name: groq
  secret: { secretName: {{ . }}, defaultMode: 288 }
{{- end }}
{{- with .Values.console }}
{{- if and .enabled .oidc.issuer .oidc.clientSecret.name }}
- name: oidc
  secret: { secretName: {{ .oidc.clientSecret.name }}, defaultMode: 288, items: [{ key: {{ .oidc.clientSecret.key }}, path: client-secret }] }
{{- end }}
{{- if and .enabled .sessionKeys.name }}
- name: session
  secret: { secretName: {{ .sessionKeys.name }}, defaultMode: 288 }
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tollgate.pod" -}}
metadata:
  labels:
    {{- include "tollgate.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "tollgate.fullname" . }}
  automountServiceAccountToken: false
  # Their variables would be taken for settings.
  enableServiceLinks: false
  # Longer than the pause and drain_timeout together.
  terminationGracePeriodSeconds: {{ add .Values.preStopSeconds .Values.drainSeconds 5 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: { type: RuntimeDefault }
  containers:
    - name: tollgate
      image: {{ include "tollgate.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      env:
        {{- include "tollgate.env" . | nindent 8 }}
      ports:
        - { name: grpc, containerPort: 50051, protocol: TCP }
        - { name: operators, containerPort: 8081, protocol: TCP }
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      # Up to five minutes for an embedded store to be read and checked.
      startupProbe:
        httpGet: { path: /livez, port: operators, scheme: {{ include "tollgate.scheme" . | upper }} }
        periodSeconds: 5
        failureThreshold: 60
      livenessProbe:
        httpGet: { path: /livez, port: operators, scheme: {{ include "tollgate.scheme" . | upper }} }
        periodSeconds: 10
        timeoutSeconds: 3
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: operators, scheme: {{ include "tollgate.scheme" . | upper }} }
        periodSeconds: 5
        timeoutSeconds: 2
        failureThreshold: 2
      {{- if .Values.preStopSeconds }}
      lifecycle:
        preStop: { sleep: { seconds: {{ .Values.preStopSeconds }} } }
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        {{- include "tollgate.mounts" . | nindent 8 }}
  volumes:
    {{- if and (eq .Values.store.kind "redis") (not .Values.store.redis.spool.size) }}
    # What a proposed policy is tried on.
    - name: state
      emptyDir: { sizeLimit: 1Gi }
    {{- end }}
    {{- include "tollgate.volumes" . | nindent 4 }}
  {{- if eq .Values.store.kind "redis" }}
  topologySpreadConstraints:
    {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "tollgate.selector" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
