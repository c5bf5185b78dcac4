#!/bin/bash
# Sends what config/openapi.json allows, and much that it does not, to a server that is started for it in a folder of its
# own, and compares the answers with the document. `./dev api` runs it with the server that was built.
#
#   KILN_PROGRAM=target/debug/kiln KILN_VENV=.dev/schemathesis tests/schemathesis.sh
#
# Schemathesis speaks TCP, so that the socket is passed on by socat for as long as this runs.
set -euo pipefail

kiln=${KILN_PROGRAM:?name the program, or use ./dev api}
venv=${KILN_VENV:?name the folder of schemathesis, or use ./dev api}
venv=$(realpath -m "$venv")
version=4.32.5
if ! "$venv/bin/st" --version 2> /dev/null | grep --quiet --fixed-strings "$version"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "schemathesis==$version"
fi
work=$(mktemp -d)
server= passed=
stop() {
    [ -z "$passed" ] || kill "$passed" || true
    [ -z "$server" ] || { kill "$server" && wait "$server"; } || true
    rm -rf "$work"
}
trap stop EXIT
mkdir "$work/loaders"
echo none > "$work/loaders/undionly.kpxe"
cat > "$work/kiln.toml" << END
[server]
data-dir = "$work/kiln"
socket = "$work/kiln.sock"
[store]
dir = "$work/store"
[loaders]
dir = "$work/loaders"
[http]
port = 0
[tftp]
port = 0
[[subnet]]
network = "127.0.0.0/8"
interface = "lo"
address = "127.0.0.1"
dhcp = "off"
END
"$kiln" serve --config "$work/kiln.toml" 2> "$work/log" &
server=$!
for _ in $(seq 300); do
    [ -S "$work/kiln.sock" ] && break
    kill -0 "$server" || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
port=${PORT:-18444}
socat "TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr" "UNIX-CONNECT:$work/kiln.sock" &
passed=$!
# It keeps what it found where it runs.
cd "$work"
# The stream of events has no end, and who asks for the log of a build may wait for its next line.
"$venv/bin/st" run "http://127.0.0.1:$port/api/v1/openapi.json" \
    --wait-for-schema 30 \
    --exclude-path /api/v1/events \
    --exclude-path '/api/v1/builds/{image}/log' \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --max-examples "${EXAMPLES:-20}"
