#!/bin/sh
# How long commands take from their start to their end: `kiln --version`, and `kiln machine list` of no machines from a
# server on the same host; docs/benchmarks.md quotes it. `./dev bench` runs it. Each number is of KILN_BENCH_STARTS starts.
set -eu
kiln=${KILN_PROGRAM:?run by ./dev bench}
work=$(mktemp -d "${KILN_BENCH_CACHE:-/var/tmp}/command.XXXXXX")
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT INT TERM
mkdir "$work/loaders"
echo none >"$work/loaders/undionly.kpxe"
cat >"$work/kiln.toml" <<TOML
[server]
data-dir = "$work/kiln"
socket = "$work/kiln.sock"
[store]
dir = "$work/store"
[loaders]
dir = "$work/loaders"
[http]
port = 18081
[tftp]
port = 10068
[[subnet]]
network = "127.0.0.0/8"
interface = "lo"
address = "127.0.0.1"
dhcp = "off"
TOML
RUST_LOG=error "$kiln" serve --config "$work/kiln.toml" >"$work/out" 2>&1 &
server=$!
tries=0
until [ -S "$work/kiln.sock" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { cat "$work/out" >&2; exit 1; }
    sleep 0.1
done
python3 - "$kiln" "$work/kiln.sock" "${KILN_BENCH_STARTS:-50}" <<'PYTHON'
import os, statistics, sys, time

kiln, sock, starts = sys.argv[1], sys.argv[2], int(sys.argv[3])
nothing = os.open(os.devnull, os.O_RDWR)
files = [(os.POSIX_SPAWN_DUP2, nothing, descriptor) for descriptor in (0, 1)]

def took(arguments):
    """Starts a program once; returns the milliseconds until it has ended."""
    before = time.perf_counter()
    process = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=files)
    _, status = os.waitpid(process, 0)
    after = time.perf_counter()
    if status:
        sys.exit(f"{' '.join(arguments)} failed")
    return (after - before) * 1000

print(f"{'command':<20} {'median':>8} {'slowest':>8}   ms, {starts} starts")
for name, arguments in [
    ("true", ["/bin/true"]),
    ("kiln --version", [kiln, "--version"]),
    ("kiln machine list", [kiln, "machine", "list", "--socket", sock]),
]:
    times = [took(arguments) for _ in range(starts)]
    print(f"{name:<20} {statistics.median(times):8.1f} {max(times):8.1f}")
PYTHON
