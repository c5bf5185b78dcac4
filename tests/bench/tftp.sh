#!/bin/sh
# Times TFTP servers side by side, in one run, over a pair of virtual Ethernet cards between two network namespaces, and
# prints a table; docs/benchmarks.md quotes it. `./dev bench` runs it, as root.
#
# KILN_BENCH_CACHE keeps the packages of tftpd-hpa and atftpd, which are unpacked and not installed: each would start a
# server of its own, and neither wants the other beside it.
set -eu
kiln=${KILN_PROGRAM:?run by ./dev bench}
client=${KILN_CASES:?run by ./dev bench}
cache=${KILN_BENCH_CACHE:?run by ./dev bench}
rounds=${KILN_BENCH_ROUNDS:-3}
work=$(mktemp -d)
server=
near=
far=
cleanup() {
    for process in $server $near $far; do kill "$process" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT INT TERM

# fetch PACKAGE...: unpacks what is not here yet, each in a folder of its own: two of them have an in.tftpd.
fetch() {
    for package; do
        [ ! -d "$cache/$package" ] || continue
        mkdir -p "$cache/debs"
        (cd "$cache/debs" && apt-get -qq download "$package" >/dev/null 2>"$work/log" &&
            dpkg-deb -x "${package}"_*.deb "$cache/$package") ||
            echo "without $package: $(tail -n 1 "$work/log")" >&2
    done
}
fetch libwrap0 tftpd-hpa atftpd
LD_LIBRARY_PATH=$(dirname "$(find "$cache/libwrap0" -name 'libwrap.so*' | head -n 1)")
export LD_LIBRARY_PATH

. "$(dirname "$0")/wire.sh"
wire 10.79.0.1/24 10.79.0.2/24

# What is sent: 8 MB to one client, and 1 MB to each of 64.
mkdir -p "$work/files/ipxe"
chmod 755 "$work" "$work/files" "$work/files/ipxe"
head -c 8000000 /dev/urandom >"$work/files/ipxe-amd64.efi"
head -c 1000000 /dev/urandom >"$work/files/undionly.kpxe"
for engine in kiln async-tftp; do
    mkdir "$work/$engine"
    cat >"$work/$engine.toml" <<END
[server]
data-dir = "$work/$engine"
socket = "$work/$engine/socket"
[loaders]
dir = "$work/files"
[tftp]
engine = "$engine"
transfers-per-client = 100
[[subnet]]
network = "10.79.0.0/24"
interface = "wire0"
address = "10.79.0.1"
dhcp = "off"
END
done

start() {
    case $1 in
    kiln | async-tftp) set -- "$kiln" serve --config "$work/$1.toml" ;;
    tftpd-hpa) set -- "$cache/tftpd-hpa/usr/sbin/in.tftpd" -L -u root -a 10.79.0.1:69 -s "$work/files" ;;
    atftpd) set -- "$cache/atftpd/usr/sbin/atftpd" --daemon --no-fork --bind-address 10.79.0.1 --maxthread 200 \
        --user root --group root "$work/files" ;;
    dnsmasq) set -- dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --user=root --pid-file= --enable-tftp \
        --tftp-root="$work/files" --tftp-max=200 --listen-address=10.79.0.1 --bind-interfaces ;;
    esac
    nsenter --target "$near" --net -- "$@" >"$work/server.log" 2>&1 &
    server=$!
    tries=0
    until fetched=$(measure undionly.kpxe 512 1 1 2>/dev/null); do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { cat "$work/server.log" >&2; return 1; }
        kill -0 "$server" 2>/dev/null || { cat "$work/server.log" >&2; server=; return 1; }
    done
    [ "${fetched##* }" = 1000000 ]
}

stop() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; }
    server=
}

# measure NAME BLKSIZE WINDOWSIZE TRANSFERS: prints MB/s, how often the client waited in vain, and bytes.
measure() { on_client env KILN_TFTP_CLIENT="10.79.0.1:69 $1 $2 $3 $4" "$client"; }

servers="kiln async-tftp tftpd-hpa atftpd dnsmasq"
round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    for name in $servers; do
        start "$name" || { echo "$name does not start" >&2; stop; continue; }
        for transfers in 1 64; do
            file=ipxe-amd64.efi
            [ "$transfers" = 1 ] || file=undionly.kpxe
            for block in 512 1468; do
                for window in 1 4 16; do
                    result=$(measure "$file" "$block" "$window" "$transfers" 2>"$work/log") ||
                        { cat "$work/log" >&2; result="0 0 0"; }
                    echo "$name $transfers $block $window $result"
                done
            done
        done
        stop
    done
done >"$work/results"

# The best of the rounds counts: what disturbs a round is not the server.
awk -v names="$servers" '
    { key = $2 " " $3 " " $4; if (!(key in seen)) { seen[key] = 1; order[++rows] = key }
      if ($5 > best[key, $1]) best[key, $1] = $5; waits[$1] += $6 }
    END {
        count = split(names, name, " ")
        printf "| transfers | block | window |"; for (i = 1; i <= count; i++) printf " %s |", name[i]
        print " kiln / best of the others |"
        printf "|---|---|---|"; for (i = 1; i <= count; i++) printf "---|"; print "---|"
        for (r = 1; r <= rows; r++) {
            key = order[r]; split(key, part, " "); top = 0
            printf "| %s | %s | %s |", part[1], part[2], part[3]
            for (i = 1; i <= count; i++) {
                speed = best[key, name[i]]; printf " %.0f |", speed
                if (i > 2 && speed > top) top = speed
            }
            ratio = 0
            if (top > 0) ratio = best[key, "kiln"] / top
            printf " %.2f |\n", ratio
        }
        printf "MB/s. Waits of half a second:"; for (i = 1; i <= count; i++) printf " %s %d", name[i], waits[name[i]]
        print ""
    }' "$work/results"
