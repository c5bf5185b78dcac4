#!/bin/bash
# Sends what config/openapi.json allows, and much that it does not, to a server that is started for it in a folder of its
# own, and compares the answers with the document. `./dev api` runs it with the server that was built.
#
#   KILN_PROGRAM=target/debug/kiln KILN_VENV=.dev/schemathesis tests/schemathesis.sh
#
# It comes by the network with a token, to a server in which there is something of every noun that can be had without
# machines: tests/schemathesis.py fills it.
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
tests=$(dirname "$(realpath "$0")")
server= passed=
stop() {
    [ -z "$passed" ] || kill "$passed" || true
    [ -z "$server" ] || { kill "$server" && wait "$server"; } || true
    rm -rf "$work"
}
trap stop EXIT
mkdir "$work/loaders"
echo none > "$work/loaders/undionly.kpxe"
port=${PORT:-18444}
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
[api]
listen = "127.0.0.1:$port"
[webhooks]
allow = ["127.0.0.0/8"]
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
# Of one address nobody is let in any more after some requests without a good token, which are among those that are sent.
python3 "$tests/schemathesis.py" pass-on $((port + 1)) "$port" &
passed=$!
for _ in $(seq 100); do
    (exec 3<> "/dev/tcp/127.0.0.1/$((port + 1))") 2> /dev/null && break
    sleep 0.1
done
token=$(python3 "$tests/schemathesis.py" fill "$work/kiln.sock")
"$kiln" ca export --store "$work/store" > "$work/ca.pem"
# It keeps what it found where it runs.
cd "$work"
cp "$tests/schemathesis.py" schemathesis_hooks.py
export SCHEMATHESIS_HOOKS=schemathesis_hooks PYTHONPATH=$work
checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance
checks+=,response_schema_conformance,negative_data_rejection,unsupported_method,ignored_auth,use_after_free
checks+=,ensure_resource_availability
# The stream of events has no end, and who asks for the log of a build may wait for its next line.
"$venv/bin/st" run "https://127.0.0.1:$((port + 1))/api/v1/openapi.json" \
    --wait-for-schema 30 \
    --tls-verify "$work/ca.pem" \
    --header "Authorization: Bearer $token" \
    --header 'Connection: close' \
    --exclude-path /api/v1/events \
    --exclude-path '/api/v1/builds/{image}/log' \
    --checks "$checks" \
    --max-examples "${EXAMPLES:-20}"
