#!/bin/sh
# A PostgreSQL server for tests, from Debian's package `postgresql`: makes one in a folder of its own, prints the folder
# with its socket, and takes all of it away when its standard input ends, however the test ended. Nobody reaches it but
# by that socket; its user is `kiln`.
#
#   tests/postgres.sh <PIPE
set -eu
trap '' HUP INT TERM

die() { printf 'postgres.sh: %s\n' "$*" >&2; exit 1; }

bin=
for dir in /usr/lib/postgresql/*/bin; do [ -x "$dir/initdb" ] && bin=$dir; done
[ -n "$bin" ] || die "there is no PostgreSQL; install Debian's package \`postgresql\` (./dev does)"

# The server refuses to run as root.
if [ "$(id -u)" = 0 ]; then
    as() { setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; }
else
    as() { "$@"; }
fi

# The path of a socket has 107 bytes at most, so that the folder is not where TMPDIR may be.
top=$(mktemp -d /tmp/kiln-postgres.XXXXXX)
end() {
    as "$bin/pg_ctl" -D "$top/data" -m immediate -t 20 stop >/dev/null 2>&1 || true
    rm -rf "$top"
}
trap end EXIT
[ "$(id -u)" != 0 ] || chown postgres: "$top"
chmod 755 "$top"
cd "$top"
as "$bin/initdb" -D "$top/data" -U kiln -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$top/log" 2>&1 ||
    { cat "$top/log" >&2; die "initdb failed"; }
# Nothing has to outlive the test, so that nothing waits for the disk.
as "$bin/pg_ctl" -D "$top/data" -l "$top/data/log" -t 120 -w start -o \
    "-k $top -c listen_addresses= -c fsync=off -c full_page_writes=off -c max_connections=400 -c shared_buffers=32MB" \
    >>"$top/log" 2>&1 || { cat "$top/log" "$top/data/log" >&2; die "the server did not start"; }
echo "$top"
cat >/dev/null
