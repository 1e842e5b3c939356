#!/bin/sh
# Builds a Debian package of the tools, with man pages, completions, the default
# template and systemd units, for Debian 12 and 13. Installs cargo-deb into
# target/. Checks the package with lintian if that is installed.
#
# Usage: ./build-deb.sh
set -eu
cd "$(dirname "$0")"
. ./scripts.sh

case ${1:-} in
    '') ;;
    -h | --help) help ;;
    *) die "unknown argument '$1', see --help" ;;
esac
umask 022
have cargo || die "cargo not found: ./provision.sh installs it"

cargo_deb=3.6.4 # the newest that Rust 1.85 compiles, whatever later versions claim
[ "$(target/cargo-deb/bin/cargo-deb --version 2>/dev/null)" = "cargo-deb $cargo_deb" ] || {
    say "installing cargo-deb $cargo_deb into target/cargo-deb"
    cargo install --locked --root target/cargo-deb "cargo-deb@$cargo_deb" || die "cargo-deb $cargo_deb cannot be installed"
}

# As in build-images.sh, so that nothing is compiled twice.
triple=$(uname -m)-unknown-linux-gnu
work=target/deb
say "compiling the tools"
for packages in '' '-p deploy-nodes -p scale-nodes'; do
    # shellcheck disable=SC2086 # a list of options
    RUSTFLAGS=$static cargo build --release --locked --target "$triple" --target-dir target $packages || die "the tools do not compile"
done
rm -rf "$work"
"target/$triple/release/manual" "$work/manual" || die "cannot generate the man pages"
for page in "$work"/manual/man1/*; do
    tool=$(basename "$page" .1)
    install -D -m 755 "target/$triple/release/$tool" "$work/bin/$tool"
done
package=$(target/cargo-deb/bin/cargo-deb --quiet --no-build --no-strip -p manual --target "$triple" --output "$work/") || die "cannot build the package"
dpkg-deb --info "$package" | sed 's/^/    /'
! have lintian || lintian --allow-root --fail-on error,warning "$package" || die "lintian rejects $package"
say "built $package: apt install ./$package"
