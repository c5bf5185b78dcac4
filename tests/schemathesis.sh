#!/bin/bash
# Sends what config/openapi.json allows, and much that it does not, to a running server. Its data is lost: machines are
# added, changed and removed at random.
#
#   tests/schemathesis.sh /run/kiln/kiln.sock [VENV]
#
# Schemathesis speaks TCP, so that the socket is passed on by socat for as long as this runs.
set -euo pipefail

socket=${1:?"name the socket of a server whose data does not matter"}
venv=${2:-venv}
st=$venv/bin/st
[ -x "$st" ] || st=$(command -v st) || {
    echo "no schemathesis: python3 -m venv $venv && $venv/bin/pip install schemathesis" >&2
    exit 2
}
command -v socat > /dev/null || { echo "no socat: apt-get install socat" >&2; exit 2; }
port=${PORT:-18444}
socat "TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr" "UNIX-CONNECT:$socket" &
trap 'kill %1' EXIT
for _ in $(seq 50); do
    curl --silent --fail --output /dev/null "http://127.0.0.1:$port/api/v1/openapi.json" && break
    sleep 0.1
done
# The stream of events has no end.
"$st" run "http://127.0.0.1:$port/api/v1/openapi.json" \
    --exclude-path /api/v1/events \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --max-examples "${EXAMPLES:-50}"
