#!/bin/sh
# Times the builder on the demo image: with packages cached, unchanged, and after a change to one service.
# `./dev bench` runs it and prints a table; docs/benchmarks.md quotes one. Ratios are what matters: machines differ.
set -eu
kiln=${KILN_PROGRAM:?run by ./dev bench}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

cp -r "$(dirname "$0")/../../config/images" "$work/images"
spec=$work/images/demo.yml

# seconds COMMAND...: runs it and prints how long it took.
seconds() {
    start=$(date +%s.%N)
    "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    end=$(date +%s.%N)
    echo "$start $end" | awk '{ printf "%.2f", $2 - $1 }'
}

build() { "$kiln" build "$spec" --arch x86_64 --store "$work/$1" --out "$work/out"; }

build packages >/dev/null 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
mkdir "$work/store"
cp -r "$work/packages/cache" "$work/store/cache"
rm -rf "$work/store/cache/built"
first=$(seconds build store)
again=$(seconds build store)
sed -i 's/"80"/"81"/' "$spec"
changed=$(seconds build store)

echo "| build of the demo image, x86_64 | seconds | of the first |"
echo "|---|---|---|"
for row in "first, packages cached:$first" "unchanged:$again" "one service changed:$changed"; do
    echo "${row%%:*} ${row##*:} $first" |
        awk -v name="${row%%:*}" -v took="${row##*:}" -v first="$first" 'BEGIN { printf "| %s | %.2f | %.2f |\n", name, took, took / first }' </dev/null
done
echo
ls -l "$work/out" | awk 'NR > 1 { printf "%s %.1f MiB\n", $NF, $5 / 1048576 }'
