#!/bin/sh
# package.sh PROGRAM FOLDER: makes a Debian package of a kiln that is built, in that folder, and prints where it is.
#
# The same program and commit make the same bytes; SOURCE_DATE_EPOCH, where it is set, is the time in it.
set -eu
[ $# = 2 ] || { sed -n '2,/^set -eu/{/^set -eu/!s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
program=$(realpath "$1")
mkdir -p "$2"
folder=$(realpath "$2")
cd "$(dirname "$0")/.."
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
version=$("$program" --version | awk '{ print $2; exit }')
arch=$(dpkg --print-architecture)
# The newest symbols that it asks of the C library say how old that may be.
libc=$(objdump -T "$program" | grep -o 'GLIBC_[0-9][0-9.]*' | sort -Vu | tail -n 1 | cut -d _ -f 2)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
umask 022

put() { install -D -m "$1" "$2" "$root/$3"; }
put 755 "$program" usr/bin/kiln
strip --strip-unneeded "$root/usr/bin/kiln"
put 644 systemd/kiln.service usr/lib/systemd/system/kiln.service
put 644 systemd/kiln.sysusers.conf usr/lib/sysusers.d/kiln.conf
put 644 systemd/kiln.tmpfiles.conf usr/lib/tmpfiles.d/kiln.conf
put 644 config/kiln.toml etc/kiln/kiln.toml
mkdir -p "$root/etc/kiln/images"
for page in docs/man/*; do
    put 644 "$page" "usr/share/man/man${page##*.}/${page##*/}"
done
gzip -9n "$root"/usr/share/man/man*/*
complete() { mkdir -p "$root/usr/share/$2"; "$program" completions "$1" >"$root/usr/share/$2/$3"; }
complete bash bash-completion/completions kiln
complete zsh zsh/vendor-completions _kiln
complete fish fish/vendor_completions.d kiln.fish
doc=usr/share/doc/kiln
for file in README.md ARCHITECTURE.md docs/*.md config/openapi.json config/grafana/* config/prometheus/* config/schema/* config/images/*.yml; do
    case $file in
    config/images/*) put 644 "$file" "$doc/examples/${file#config/}" ;;
    *) put 644 "$file" "$doc/${file#config/}" ;;
    esac
done
gzip -9nc CHANGELOG.md >"$root/$doc/changelog.gz"
{
    echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
    echo
    echo "Files: *"
    echo "Copyright: the developers of Kiln"
    echo "License: MIT or Apache-2.0"
    sed 's/^$/./; s/^/ /' LICENSE-MIT
    echo " ."
    echo " The Apache licence is in /usr/share/common-licenses/Apache-2.0."
} >"$root/$doc/copyright"

mkdir "$root/DEBIAN"
sed -e "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@LIBC@/$libc/" \
    -e "s/@SIZE@/$(du -sk --exclude=DEBIAN "$root" | cut -f 1)/" systemd/debian/control >"$root/DEBIAN/control"
(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do put 755 "systemd/debian/$script" "DEBIAN/$script"; done
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"

package=$folder/kiln_${version}_$arch.deb
dpkg-deb --root-owner-group -Zxz -z"${KILN_PACKAGE_LEVEL:-6}" --build "$root" "$package" >/dev/null
echo "$package"
