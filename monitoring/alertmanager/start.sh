#!/bin/sh
# Alertmanager does not expand environment variables, so the webhook URL is written to files inside the container.
set -eu
umask 077
cp /etc/alertmanager/alertmanager.yml /tmp/alertmanager.yml
if [ -n "${ALERT_WEBHOOK_URL:-}" ]; then
  printf '%s' "$ALERT_WEBHOOK_URL" > /tmp/webhook_url
  printf '    webhook_configs:\n      - url_file: /tmp/webhook_url\n        send_resolved: true\n' >> /tmp/alertmanager.yml
fi
exec /bin/alertmanager --config.file=/tmp/alertmanager.yml --storage.path=/alertmanager "$@"
