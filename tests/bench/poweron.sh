#!/bin/sh
# Measures how long a UEFI machine takes from power-on until its kernel starts kiln-init, by each way that Kiln has and
# by dnsmasq, iPXE and nginx with the same kernel, initrd and iPXE. Prints a table; docs/benchmarks.md quotes it.
# `./dev bench` runs it, as root, because it makes a network of its own.
#
# KILN_BENCH_ROUNDS is how often each way is measured; KILN_BENCH_CACHE keeps packages, which are unpacked and not
# installed, and the image.
set -eu
kiln=${KILN_PROGRAM:?run by ./dev bench}
cache=${KILN_BENCH_CACHE:?run by ./dev bench}/poweron
rounds=${KILN_BENCH_ROUNDS:-3}
if [ -z "${KILN_BENCH_INSIDE:-}" ]; then
    mkdir -p "$cache/packages"
    if [ ! -e "$cache/packages/usr/sbin/nginx" ]; then
        (cd "$cache/packages" && apt-get -qq download nginx && dpkg-deb -x nginx_*.deb .)
    fi
    # iPXE and the stub as Kiln fetches them, of Debian 13 whatever this host is.
    mkdir -p "$cache/data"
    cat >"$cache/fetch.toml" <<TOML
[server]
data-dir = "$cache/data"
socket = "$cache/kiln.sock"
[store]
dir = "$cache/store"
[trust]
require-signature = false
[http]
port = 0
[tftp]
port = 0
[images]
dir = "$cache/none"
[[subnet]]
network = "127.0.0.0/8"
interface = "lo"
address = "127.0.0.1"
dhcp = "off"
TOML
    "$kiln" serve --config "$cache/fetch.toml" >"$cache/fetch.log" 2>&1 &
    fetching=$!
    tries=0
    until [ -S "$cache/kiln.sock" ] && [ -e "$cache/data/loaders/linuxx64.efi.stub" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 1200 ] && kill -0 "$fetching" || { cat "$cache/fetch.log" >&2; exit 1; }
        sleep 0.1
    done
    kill "$fetching"
    wait "$fetching" || true
    rm -rf "$cache/out"
    # A copy, so that its lock file is here too.
    cp config/images/minimal.yml "$cache"
    "$kiln" build "$cache/minimal.yml" --arch x86_64 --store "$cache/store" --out "$cache/out" >"$cache/build.log" 2>&1 ||
        { cat "$cache/build.log" >&2; exit 1; }
    # Not the network of this computer: nothing else is there, and no port is taken.
    exec env KILN_BENCH_INSIDE=1 unshare --net sh "$0" "$@"
fi
work=$(mktemp -d)
pids=
end() {
    for process in $pids; do kill "$process" 2>/dev/null || true; done
    wait 2>/dev/null || true
    pids=
}
trap 'end; rm -rf "$work"' EXIT INT TERM
chmod 755 "$work"
ip link set lo up
ip link add kiln0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0
ip address add 10.77.0.1/24 dev kiln0
ip link set kiln0 up
ip tuntap add dev port0 mode tap
ip link set port0 master kiln0 up
mac=52:54:00:77:00:01

mkdir -p "$work/loaders" "$work/root" "$work/data"
ipxe=$cache/data/loaders/ipxe-amd64.efi
cp "$ipxe" "$cache/data/loaders/linuxx64.efi.stub" "$work/loaders"

# Until a file is there or a port answers.
answers() {
    tries=0
    until curl -s -o /dev/null "http://10.77.0.1:8080/$1"; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { cat "$work"/*.log >&2; exit 1; }
        sleep 0.1
    done
}

ours() {
    cat >"$work/kiln.toml" <<TOML
[server]
data-dir = "$work/data"
socket = "$work/kiln.sock"
[store]
dir = "$cache/store"
[trust]
require-signature = false
[images]
dir = "$work/none"
[loaders]
dir = "$work/loaders"
[[subnet]]
network = "10.77.0.0/24"
interface = "kiln0"
address = "10.77.0.1"
pool = ["10.77.0.100-10.77.0.199"]
TOML
    "$kiln" serve --config "$work/kiln.toml" >"$work/kiln.log" 2>&1 &
    pids="$pids $!"
    answers livez
    machine() { "$kiln" machine "$@" --socket "$work/kiln.sock" >>"$work/machine.log" 2>&1; }
    machine add n1 --mac "$mac" --image minimal --loader "$1" || machine set n1 --loader "$1"
}

theirs() {
    cp "$ipxe" "$work/root/ipxe.efi"
    cp "$cache/out/kernel" "$cache/out/initrd.img" "$work/root"
    chmod -R a+rX "$work/root"
    cat >"$work/root/boot.ipxe" <<IPXE
#!ipxe
kernel http://10.77.0.1:8080/kernel initrd=initrd.img $(cat "$cache/out/cmdline")
initrd http://10.77.0.1:8080/initrd.img
boot
IPXE
    cat >"$work/dnsmasq.conf" <<CONF
keep-in-foreground
port=0
user=root
interface=kiln0
bind-interfaces
dhcp-leasefile=$work/leases
dhcp-range=10.77.0.100,10.77.0.199,255.255.255.0
dhcp-userclass=set:ipxe,iPXE
dhcp-boot=tag:!ipxe,ipxe.efi
dhcp-boot=tag:ipxe,http://10.77.0.1:8080/boot.ipxe
enable-tftp
tftp-root=$work/root
CONF
    dnsmasq -C "$work/dnsmasq.conf" --pid-file= >"$work/dnsmasq.log" 2>&1 &
    pids="$pids $!"
    cat >"$work/nginx.conf" <<NGINX
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log;
user root;
events { worker_connections 64; }
http {
    sendfile on;
    access_log off;
    client_body_temp_path $work/a; proxy_temp_path $work/b; fastcgi_temp_path $work/c;
    uwsgi_temp_path $work/d; scgi_temp_path $work/e;
    server { listen 10.77.0.1:8080; root $work/root; }
}
NGINX
    "$cache/packages/usr/sbin/nginx" -c "$work/nginx.conf" 2>"$work/nginx.err.log" &
    pids="$pids $!"
    answers boot.ipxe
}

# boot PXE|HTTP: switches the machine on and prints how many seconds it took.
boot() {
    cp /usr/share/OVMF/OVMF_VARS_4M.fd "$work/vars.fd"
    : >"$work/console"
    only=
    if [ "$1" = http ]; then
        only="-fw_cfg name=opt/org.tianocore/IPv4PXESupport,string=n -fw_cfg name=opt/org.tianocore/IPv6PXESupport,string=n"
    fi
    from=$(date +%s.%N)
    # shellcheck disable=SC2086
    qemu-system-x86_64 -accel tcg -M q35 -m 1024 -nodefaults -nographic -monitor none -no-reboot \
        -serial "file:$work/console" -device virtio-rng-pci \
        -netdev tap,id=net0,ifname=port0,script=no,downscript=no \
        -device "virtio-net-pci,netdev=net0,mac=$mac,bootindex=0,romfile=" $only \
        -drive "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd" \
        -drive "if=pflash,format=raw,unit=1,file=$work/vars.fd" </dev/null >"$work/qemu.log" 2>&1 &
    qemu=$!
    pids="$pids $qemu"
    tries=0
    until grep -qa "Run /init as init process" "$work/console"; do
        tries=$((tries + 1))
        if [ "$tries" -ge 12000 ] || ! kill -0 "$qemu" 2>/dev/null; then
            tail -c 2000 "$work/console" "$work/qemu.log" >&2
            exit 1
        fi
        sleep 0.05
    done
    to=$(date +%s.%N)
    kill "$qemu"
    wait "$qemu" 2>/dev/null || true
    awk -v from="$from" -v to="$to" 'BEGIN { printf "%.1f\n", to - from }' >>"$work/seconds.$2"
}

round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    theirs; boot pxe theirs; end
    ours ipxe; boot pxe ipxe; end
    ours uki; boot pxe tftp; boot http http; end
done
median() { sort -n "$work/seconds.$1" | sed -n "$(((rounds + 1) / 2))p"; }
other=$(median theirs)
row() {
    seconds=$(median "$2")
    awk -v what="$1" -v s="$seconds" -v other="$other" 'BEGIN { printf "| %s | %.1f | %.2f |\n", what, s, s / other }'
}
echo "| power-on until kiln-init, UEFI x86_64 | seconds | ratio |"
echo "|---|---|---|"
row "dnsmasq, iPXE, nginx" theirs
row "Kiln: iPXE by PXE" ipxe
row "Kiln: UKI by PXE" tftp
row "Kiln: UKI by HTTP Boot" http
