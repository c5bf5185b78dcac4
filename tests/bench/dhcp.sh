#!/bin/sh
# Times DHCP servers side by side, in one run, over a pair of virtual Ethernet cards between two network namespaces, by
# Kea's perfdhcp, and prints a table; docs/benchmarks.md quotes it. `./dev bench` runs it, as root.
#
# For each server: the most exchanges a second (DISCOVER, OFFER, REQUEST, ACK) of which at most 1 in 100 stays without an
# answer, each with a client of its own, and the delays of both answers at half of that rate. KILN_BENCH_SECONDS is the
# length of one trial. Then 1 000 machines ask Kiln at once.
set -eu
kiln=${KILN_PROGRAM:?run by ./dev bench}
here=$(cd "$(dirname "$0")" && pwd)
seconds=${KILN_BENCH_SECONDS:-4}
# Leases go to a disk, not to memory that calls itself one.
work=$(mktemp -d "${KILN_BENCH_CACHE:-/var/tmp}/dhcp.XXXXXX")
server=
near=
far=
cleanup() {
    for process in $server $near $far; do kill "$process" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT INT TERM

# Else perfdhcp loses answers of any server in its own socket, and what is measured is that.
ROOM=$work/room.so
gcc -O2 -shared -fPIC -o "$ROOM" "$here/room.c" -ldl
export ROOM

. "$here/wire.sh"
wire 10.80.0.1/12 10.80.0.2/12

mkdir "$work/loaders"
echo none >"$work/loaders/undionly.kpxe"
cat >"$work/kiln.toml" <<EOF
[server]
data-dir = "$work/kiln"
socket = "$work/kiln.sock"
[store]
dir = "$work/store"
[loaders]
dir = "$work/loaders"
[[subnet]]
network = "10.80.0.0/12"
interface = "wire0"
address = "10.80.0.1"
pool = ["10.81.0.0-10.88.255.255"]
lease-time = "1h"
EOF
# kea THREADS: writes its settings.
kea() {
    threads='"enable-multi-threading": false'
    [ "$1" = 1 ] || threads='"enable-multi-threading": true, "thread-pool-size": 2, "packet-queue-size": 64'
    cat <<EOF
{ "Dhcp4": { "interfaces-config": { "interfaces": ["wire0"] }, "valid-lifetime": 3600,
  "lease-database": { "type": "memfile", "persist": true, "name": "$work/kea-$1.csv", "lfc-interval": 0 },
  "multi-threading": { $threads },
  "loggers": [ { "name": "kea-dhcp4", "severity": "ERROR", "output_options": [ { "output": "$work/kea.log" } ] } ],
  "subnet4": [ { "id": 1, "subnet": "10.80.0.0/12", "pools": [ { "pool": "10.81.0.0 - 10.88.255.255" } ] } ] } }
EOF
}
kea 1 >"$work/kea-1.json"
kea 2 >"$work/kea-2.json"
export KEA_PIDFILE_DIR="$work" KEA_LOCKFILE_DIR=none

# start NAME: runs one server and waits until port 67 is open.
start() {
    case $1 in
    kiln) set -- "$kiln" serve --config "$work/kiln.toml" ;;
    dnsmasq) set -- dnsmasq --no-daemon --port=0 --user=root --conf-file=/dev/null --interface=wire0 --bind-interfaces \
        --dhcp-range=10.81.0.0,10.88.255.255,255.240.0.0,1h --dhcp-authoritative --no-ping --dhcp-lease-max=1000000 \
        --dhcp-leasefile="$work/dnsmasq.leases" --quiet-dhcp --log-facility=/dev/null ;;
    kea-*) set -- kea-dhcp4 -c "$work/$1.json" ;;
    esac
    # Not by a function, whose process would be between us and the server.
    RUST_LOG=error nsenter --target "$near" --net -- "$@" >"$work/out" 2>&1 &
    server=$!
    tries=0
    until on_server ss -Hlun 'sport = :67' | grep -q .; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { cat "$work/out" >&2; exit 1; }
        sleep 0.1
    done
    sleep 1
}
stop() {
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}

table=$work/table
: >"$table"
for name in ${KILN_BENCH_ONLY:-dnsmasq kea-1 kea-2 kiln}; do
    start "$name"
    python3 "$here/dhcp.py" "$name" "$far" "$server" "$seconds" rate >>"$table"
    stop
done
echo
echo '| server | exchanges a second | OFFER p50, p99 ms at half | ACK p50, p99 ms at half | processor, µs each |'
echo '|---|---|---|---|---|'
cat "$table"
start kiln
python3 "$here/dhcp.py" kiln "$far" "$server" "$seconds" avalanche
stop
