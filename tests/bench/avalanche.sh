#!/bin/sh
# Switches many machines on at once, by `kiln simulate` over a pair of virtual Ethernet cards between two network
# namespaces, and prints how long each step took; docs/benchmarks.md quotes it. `./dev bench` runs it, as root.
#
# Nobody knows the machines, so that each gets an address, a loader of 1 MB by TFTP, and a script that has it wait.
set -eu
kiln=${KILN_PROGRAM:?run by ./dev bench}
here=$(cd "$(dirname "$0")" && pwd)
# Leases go to a disk, not to memory that calls itself one.
work=$(mktemp -d "${KILN_BENCH_CACHE:-/var/tmp}/avalanche.XXXXXX")
server=
near=
far=
cleanup() {
    for process in $server $near $far; do kill "$process" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT INT TERM

. "$here/wire.sh"
wire 10.80.0.1/12 10.80.0.2/12

mkdir "$work/loaders"
head -c 1000000 /dev/urandom >"$work/loaders/ipxe-amd64.efi"
cat >"$work/kiln.toml" <<TOML
[server]
data-dir = "$work/kiln"
socket = "$work/kiln.sock"
[store]
dir = "$work/store"
[loaders]
dir = "$work/loaders"
[discovery]
unknown = "hold"
[[subnet]]
network = "10.80.0.0/12"
interface = "wire0"
address = "10.80.0.1"
pool = ["10.81.0.0-10.88.255.255"]
lease-time = "1h"
TOML

# Each run has a server and machines of its own.
number=0
run() {
    number=$((number + 1))
    rm -rf "$work/kiln"
    RUST_LOG=error nsenter --target "$near" --net -- "$kiln" serve --config "$work/kiln.toml" >"$work/out" 2>&1 &
    server=$!
    tries=0
    until [ -S "$work/kiln.sock" ] && on_server ss -Hlun 'sport = :67' | grep -q .; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || { cat "$work/out" >&2; exit 1; }
        sleep 0.1
    done
    sleep 1
    echo
    echo "kiln simulate $*"
    # In a namespace; where process 1 cannot be looked at, that cannot be told from a host.
    on_client "$kiln" simulate --yes --mac "02:4b:0$number:00:00:00" "$@" || true
    awk '/VmHWM/ { printf "the server had %.0f MB at most\n", $2 / 1000 }' "/proc/$server/status"
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}
run --interface wire1 --machines 1000 --until address
run --interface wire1 --machines 1000 --until script
run --relay 10.80.0.2 --server 10.80.0.1 --machines 5000 --until address
