#!/bin/sh
# Measures what HTTP and HTTPS cost the server, beside nginx (sendfile on) with the same file, the same certificate and
# the same clients, in one run: bytes per second of processor time. Prints a table; docs/benchmarks.md quotes it.
# `./dev bench` runs it, as root, because it makes a network of its own.
#
# KILN_BENCH_SECONDS is how long each measurement takes; KILN_BENCH_CACHE keeps nginx's package, which is unpacked and
# not installed, because it would start a server of its own.
set -eu
kiln=${KILN_PROGRAM:?run by ./dev bench}
cache=${KILN_BENCH_CACHE:?run by ./dev bench}
seconds=${KILN_BENCH_SECONDS:-6}
nginx=$cache/http/usr/sbin/nginx
if [ ! -x "$nginx" ]; then
    mkdir -p "$cache/http"
    (cd "$cache/http" && apt-get -qq download nginx && dpkg-deb -x nginx_*.deb .)
fi
# Not the network of this computer: nothing else is there, and no port is taken.
if [ -z "${KILN_BENCH_INSIDE:-}" ]; then
    exec env KILN_BENCH_INSIDE=1 unshare --net sh "$0" "$@"
fi
ip link set lo up
# Small buffers: what lies in those of 512 connections was sent before anything is measured.
sysctl -q -w net.ipv4.tcp_wmem="4096 65536 262144" net.ipv4.tcp_rmem="4096 131072 262144"
work=$(mktemp -d)
pids=
cleanup() {
    for process in $pids; do kill "$process" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT INT TERM
chmod 755 "$work"
ulimit -n "$(ulimit -H -n)"

# What is served: one file of 50 MB, as a segment of a version that nobody has signed.
mkdir -p "$work/store" "$work/data" "$work/loaders"
echo MZ >"$work/loaders/ipxe-amd64.efi"
python3 tests/bench/http.py store "$work/store" 50000000 >"$work/names"
read -r digest path <"$work/names"
cat >"$work/kiln.toml" <<TOML
[server]
data-dir = "$work/data"
socket = "$work/kiln.sock"
[store]
dir = "$work/store"
[trust]
require-signature = false
[http]
port = 8080
[https]
port = 8443
[tftp]
port = 6969
[images]
dir = "$work/none"
[loaders]
dir = "$work/loaders"
[[subnet]]
network = "127.0.0.0/8"
interface = "lo"
address = "127.0.0.1"
dhcp = "off"
TOML
"$kiln" serve --config "$work/kiln.toml" >"$work/kiln.log" 2>&1 &
served=$!
pids=$served
tries=0
until curl -s -o /dev/null http://127.0.0.1:8080/livez; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { cat "$work/kiln.log" >&2; exit 1; }
    sleep 0.1
done

# A certificate of the same kind as that of Kiln; how to encrypt is what client and server agree on by themselves.
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=bench \
    -keyout "$work/server.key" -out "$work/server.crt" 2>"$work/openssl.log"
mkdir -p "$work/root/blob/$digest"
cp "$path" "$work/root/blob/$digest/file"
cat >"$work/nginx.conf" <<NGINX
daemon off;
worker_processes auto;
pid $work/nginx.pid;
error_log $work/nginx.log;
user root;
worker_rlimit_nofile 8192;
events { worker_connections 2048; }
http {
    sendfile on;
    tcp_nopush on;
    access_log off;
    client_body_temp_path $work/a; proxy_temp_path $work/b; fastcgi_temp_path $work/c;
    uwsgi_temp_path $work/d; scgi_temp_path $work/e;
    server { listen 127.0.0.1:8081; root $work/root; }
    server {
        listen 127.0.0.1:8444 ssl; root $work/root;
        ssl_certificate $work/server.crt; ssl_certificate_key $work/server.key;
        ssl_protocols TLSv1.2 TLSv1.3;
    }
}
NGINX
"$nginx" -c "$work/nginx.conf" 2>"$work/nginx.err" &
other=$!
pids="$pids $other"
tries=0
until curl -s -o /dev/null http://127.0.0.1:8081/; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { cat "$work/nginx.err" >&2; exit 1; }
    sleep 0.1
done

echo "| | clients | Kiln, MB per second of processor | nginx | ratio |"
echo "|---|---|---|---|---|"
for kind in http https; do
    case $kind in http) ours=8080 theirs=8081 ;; https) ours=8443 theirs=8444 ;; esac
    for clients in 1 64 512; do
        python3 tests/bench/http.py measure "$kind" "$clients" "$seconds" \
            "$served:$ours:/blob/$digest/file" "$other:$theirs:/blob/$digest/file"
    done
done
