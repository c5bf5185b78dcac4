#!/bin/sh
# Times the builder and prints tables; docs/benchmarks.md quotes them. `./dev bench` runs it.
#
# It builds 8 services that have 210 MB unpacked between them, a kernel and an init from OCI images that it makes of
# Debian packages, which it keeps in KILN_BENCH_CACHE. `linuxkit` builds the same beside, if it is on the PATH.
# Ratios are what matters: machines differ. KILN_BENCH_BIG sets the size of the one large component, in MiB.
set -eu
kiln=${KILN_PROGRAM:?run by ./dev bench}
here=$(cd "$(dirname "$0")" && pwd)
cache=${KILN_BENCH_CACHE:?run by ./dev bench}
big=${KILN_BENCH_BIG:-500}
# What is dealt out to the services: programs of C and of Go, scripts and texts, as images have them.
packages="runc prometheus-node-exporter libc6 coreutils containerd git bash perl-base openssh-client openssh-server
    postgresql-15 postgresql-17"
work=$(mktemp -d)
registry=
cleanup() {
    [ -z "$registry" ] || kill "$registry" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT INT TERM

# fetch PACKAGE...: downloads those that this release of Debian has and that are not here yet.
fetch() {
    for package; do
        set -- "$cache/debs/${package}_"*.deb
        [ ! -f "$1" ] || continue
        (cd "$cache/debs" && apt-get -qq download "$package" >/dev/null 2>"$work/log") ||
            echo "without $package, which this release of Debian does not have" >&2
    done
}

layout() {
    [ ! -f "$cache/images-$big/index.json" ] || return 0
    mkdir -p "$cache/debs"
    meta=linux-image-cloud-$(dpkg --print-architecture)
    kernel=$(apt-cache depends "$meta" | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    # shellcheck disable=SC2086
    fetch "$kernel" busybox-static $packages
    set -- "$cache/debs/${kernel}_"*.deb "$cache/debs/busybox-static_"*.deb
    for package in $packages; do
        for file in "$cache/debs/${package}_"*.deb; do [ ! -f "$file" ] || set -- "$@" "$file"; done
    done
    rm -rf "$cache/images-$big"
    python3 "$here/images.py" "$cache/images-$big" "$big" "$@" >"$work/log" || { cat "$work/log" >&2; exit 1; }
}

# spec FILE PREFIX ARG [NAME [LAST]]: writes the specification; ARG is an argument of every service, NAME what they are
# called, and LAST how many there are.
spec() {
    {
        printf 'kernel:\n  image: %s/kernel:1\n  cmdline: console=ttyS0\ninit:\n  - %s/init:1\nservices:\n' "$2" "$2"
        for n in 1 2 3 4 5 6 7 8; do
            [ "$n" -le "${5:-8}" ] || continue
            printf '  - name: %s%d\n    image: %s/service%d:1\n' "${4:-service}" "$n" "$2" "$n"
            printf '    command: ["/bin/service", "%s"]\n' "$3"
        done
    } >"$1"
}

# spec_of_big FILE LAYOUT: one with the large component alone.
spec_of_big() {
    printf 'kernel:\n  image: %s/kernel:1\ninit:\n  - %s/init:1\nservices:\n  - name: big\n    image: %s/big:1\n' \
        "$local" "$local" "$local" >"$1"
    printf '    layout: %s\n' "$2" >>"$1"
}

# row NAME BYTES_IN COMMAND...: runs it and prints a line: time, processor time, peak memory, bytes in and out. The
# command prints the bytes out.
row() {
    name=$1 bytes_in=$2
    shift 2
    sync
    bytes_out=$(/usr/bin/time -q -o "$work/time" -f '%e %U %S %M' "$@" 2>"$work/log" | python3 "$here/out.py") ||
        { cat "$work/log" >&2; exit 1; }
    awk -v name="$name" -v in_="$bytes_in" -v out="$bytes_out" \
        '{ printf "| %s | %.2f | %.2f | %.0f | %.1f | %.1f |\n", name, $1, $2 + $3, $4 / 1000, in_ / 1e6, out / 1e6 }' "$work/time"
}

# layers NAME...: the size of these images as they are in the layout.
layers() {
    python3 - "$images" "$@" <<'END'
import json, pathlib, sys
images, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
blob = lambda entry: images / "blobs/sha256" / entry["digest"].removeprefix("sha256:")
total = 0
for entry in json.loads((images / "index.json").read_text())["manifests"]:
    name = entry["annotations"]["org.opencontainers.image.ref.name"].rsplit("/", 1)[1].removesuffix(":1")
    if name in names or name.rstrip("12345678") in names:
        total += sum(layer["size"] for layer in json.loads(blob(entry).read_text())["layers"])
print(total)
END
}


layout
images=$cache/images-$big
local=registry.example/bench
all=$(layers kernel init service)
spec "$work/local.yml" "$local" one
spec_of_big "$work/big-cpio.yml" cpio
spec_of_big "$work/big-packed.yml" packed

# Everything runs as a command of its own, so that what is measured is one process.
cat >"$work/run" <<END
#!/bin/sh
exec "$kiln" build "\$@" --report json --progress none --name bench
END
cat >"$work/fetch" <<END
#!/bin/sh
exec "$kiln" image fetch "\$@" --output json --progress none --name bench
END
chmod +x "$work/run" "$work/fetch"
offline="--images $images --offline"

header() {
    echo "| $1 | seconds | of both cores | peak MB | MB in | MB out |"
    echo "|---|---|---|---|---|---|"
}

header "8 images of 210 MB, a kernel and an init"
if command -v docker-registry >/dev/null && command -v skopeo >/dev/null; then
    port=${KILN_BENCH_PORT:-5199}
    cat >"$work/registry.yml" <<END
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:$port"}
END
    docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    registry=$!
    for image in kernel init service1 service2 service3 service4 service5 service6 service7 service8; do
        skopeo copy --quiet --retry-times 10 --dest-tls-verify=false "oci:$images:$local/$image:1" \
            "docker://127.0.0.1:$port/bench/$image:1" || exit 1
    done
    printf '[[registry]]\nhost = "127.0.0.1:%s"\nplain-http = true\n' "$port" >"$work/kiln.toml"
    spec "$work/remote.yml" "127.0.0.1:$port/bench" one
    row "empty store, from a registry on the same host" "$all" "$work/run" "$work/remote.yml" --store "$work/cold" \
        --config "$work/kiln.toml"
    kill "$registry"
    registry=
fi
# shellcheck disable=SC2086
{
    row "layers here, nothing packed (first build)" "$all" "$work/run" "$work/local.yml" --store "$work/store" $offline
    row "nothing changed" 0 "$work/run" "$work/local.yml" --store "$work/store" $offline
    sed -i '$ s/one/two/' "$work/local.yml"
    row "command of one service changed" 0 "$work/run" "$work/local.yml" --store "$work/store" $offline
    spec "$work/other.yml" "$local" three other
    row "another specification of these images" 0 "$work/run" "$work/other.yml" --store "$work/store" $offline
    spec "$work/local.yml" "$local" one
    row "fetched and packed beforehand" "$all" "$work/fetch" "$work/local.yml" --store "$work/store-fetched" $offline
    row "first build after that" 0 "$work/run" "$work/local.yml" --store "$work/store-fetched" $offline
    row "the same, with --release" "$all" "$work/fetch" "$work/local.yml" --store "$work/store-release" $offline --release
    row "first build after that" 0 "$work/run" "$work/local.yml" --store "$work/store-release" $offline --release
    spec "$work/seven.yml" "$local" one service 7
    "$work/run" "$work/seven.yml" --store "$work/store-seven" $offline >"$work/log"
    spec "$work/local.yml" "$local" one
    row "one service of 17 MB added" "$(layers service8)" "$work/run" "$work/local.yml" --store "$work/store-seven" \
        $offline
    row "one service of $big MiB" "$(layers big)" "$work/run" "$work/big-cpio.yml" --store "$work/store-big" $offline
    row "the same, packed" "$(layers big)" "$work/run" "$work/big-packed.yml" --store "$work/store-big" $offline
}
if command -v linuxkit >/dev/null; then
    # Its cache is an OCI layout as well; what it has in there it does not look for elsewhere.
    spec "$work/local.yml" "$local" one
    mkdir "$work/linuxkit"
    cat >"$work/run-linuxkit" <<END
#!/bin/sh
linuxkit build --cache "$images" --no-sbom --format kernel+initrd --dir "$work/linuxkit" "$work/local.yml" >&2
stat -c '{"initrd": %s}' "$work/linuxkit/"*initrd*
END
    chmod +x "$work/run-linuxkit"
    row "linuxkit, layers here" "$all" "$work/run-linuxkit"
else
    echo
    echo "Without \`linuxkit\`, which is not on the PATH."
fi
