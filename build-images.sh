#!/bin/sh
# Compiles the tools and builds the images softengheigvd/base, softengheigvd/ha and softengheigvd/webapp.
#
# Usage: ./build-images.sh
#
# SUPERVISOR=s6-overlay|s6   the supervisor of the images. Unless set: as in the image that is there already, else
#                            s6-overlay if its release can be downloaded, else Debian's s6.
# S6_OVERLAY_DIR=DIR         a folder that has the files of the s6-overlay release already
set -eu

s6_overlay=3.2.3.0
s6_overlay_sums='
b720f9d9340efc8bb07528b9743813c836e4b02f8693d90241f047998b4c53cf  s6-overlay-noarch.tar.xz
a60dc5235de3ecbcf874b9c1f18d73263ab99b289b9329aa950e8729c4789f0e  s6-overlay-symlinks-noarch.tar.xz
a93f02882c6ed46b21e7adb5c0add86154f01236c93cd82c7d682722e8840563  s6-overlay-x86_64.tar.xz
0952056ff913482163cc30e35b2e944b507ba1025d78f5becbb89367bf344581  s6-overlay-aarch64.tar.xz
'
imported=softengheigvd/debian:trixie-slim # a name of its own: it is not Docker's image of this name
work=target/images

say() { echo "==> $*"; }
die() {
    echo "build-images.sh: $*" >&2
    exit 1
}

# Compiles the tools into $work/base/rootfs/usr/local/bin; a tool has the name of its crate's folder.
compile_tools() {
    triple=$arch-unknown-linux-gnu
    say "compiling the tools"
    RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static' \
        cargo build --release --locked --target "$triple" --target-dir target ||
        die "the tools do not compile"
    for main in crates/*/src/main.rs; do
        tool=${main#crates/}
        tool=${tool%%/*}
        case $tool in
            manual | scale-nodes) continue ;; # they run on the host
        esac
        install -D -m 755 "target/$triple/release/$tool" "$work/base/rootfs/usr/local/bin/$tool"
    done
}

# Makes man pages, and completions for the bash of `docker exec -it ha bash`.
make_manual() {
    cargo run --quiet --locked --target-dir target -p manual -- "$work/manual" || die "the man pages cannot be made"
    for tool in "$work/base/rootfs/usr/local/bin"/*; do
        tool=${tool##*/}
        install -D -m 644 "$work/manual/man1/$tool.1" "$work/base/rootfs/usr/local/share/man/man1/$tool.1"
        install -D -m 644 "$work/manual/bash/$tool" "$work/base/rootfs/usr/local/share/bash-completion/completions/$tool"
    done
    gzip -9n "$work/base/rootfs/usr/local/share/man/man1"/*
}

# Sets $debian to the image to build on: pulled, or bootstrapped from this machine's Debian mirror.
find_debian() {
    debian=debian:trixie-slim
    if docker image inspect "$debian" >/dev/null 2>&1; then
        say "Debian: $debian is here"
    elif docker image inspect "$imported" >/dev/null 2>&1; then
        debian=$imported
        say "Debian: $debian is here, made by debootstrap before"
    elif timeout 600 docker pull "$debian" >"$work/pull.log" 2>&1; then
        say "Debian: $debian pulled"
    else
        say "Debian: no registry gives $debian; making $imported by debootstrap"
        bootstrap_debian
        debian=$imported
    fi
}

# Where this machine gets its Debian packages from: $1 is Debian or Debian-Security.
debian_mirror() {
    # shellcheck disable=SC2016 # apt's own variable
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Label: $1" | head -n 1)
    case $uri in # a list of mirrors in a file
        mirror+file:*) uri=$(grep -m 1 -o '^[a-z]*://[^[:space:]]*' "${uri#mirror+file:}") ;;
    esac
    echo "$uri"
}

bootstrap_debian() {
    [ "$(id -u)" = 0 ] || die "debootstrap needs root: sudo $0"
    mirror=$(debian_mirror Debian)
    if [ -z "$mirror" ]; then
        apt-get update >"$work/debootstrap.log" 2>&1 || true
        mirror=$(debian_mirror Debian)
    fi
    [ -n "$mirror" ] || die "apt knows no Debian mirror: 'docker pull $debian' by hand, or mend /etc/apt"
    security=$(debian_mirror Debian-Security)

    root=$(mktemp -d -p /var/tmp debian-XXXXXX)
    trap 'rm -rf --one-file-system "$root"' EXIT
    trap 'exit 130' INT TERM
    debootstrap --variant=minbase trixie "$root" "$mirror" >"$work/debootstrap.log" 2>&1 ||
        die "debootstrap failed: $(tail -n 1 "$work/debootstrap.log") (all of it: $work/debootstrap.log)"
    if [ -n "$security" ]; then
        echo "deb $security trixie-security main" >>"$root/etc/apt/sources.list"
    fi
    printf 'path-exclude /usr/share/%s/*\n' doc info locale man >"$root/etc/dpkg/dpkg.cfg.d/slim"
    echo 'path-include /usr/share/doc/*/copyright' >>"$root/etc/dpkg/dpkg.cfg.d/slim"
    find "$root/usr/share/doc" ! -name copyright ! -type d -delete
    rm -rf "$root"/usr/share/info/* "$root"/usr/share/locale/* "$root"/usr/share/man/* \
        "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*
    tar -C "$root" -c . | docker import -c 'CMD ["bash"]' - "$imported" >/dev/null
    rm -rf --one-file-system "$root"
    trap - EXIT INT TERM
}

# Checks the release's files in folder $1 and puts them into the build context.
stage_s6_overlay() {
    for file in $s6_overlay_files; do
        [ -e "$1/$file" ] || die "s6-overlay $s6_overlay: $1/$file is missing"
        echo "$s6_overlay_sums" | grep " $file\$" | (cd "$1" && sha256sum --check --status) ||
            die "s6-overlay $s6_overlay: $1/$file has a wrong checksum, it is not the released file: delete it"
        cp "$1/$file" "$work/base/s6-overlay/"
    done
}

download_s6_overlay() {
    for file in $s6_overlay_files; do
        [ -e "$1/$file" ] || {
            curl -fsSL --connect-timeout 5 --max-time 120 --create-dirs -o "$1/$file.part" \
                "https://github.com/just-containers/s6-overlay/releases/download/v$s6_overlay/$file" 2>/dev/null &&
                mv "$1/$file.part" "$1/$file"
        } || return 1
    done
}

# Sets $supervisor, and stages what it needs.
choose_supervisor() {
    s6_overlay_files="s6-overlay-noarch.tar.xz s6-overlay-symlinks-noarch.tar.xz s6-overlay-$arch.tar.xz"
    wanted=${SUPERVISOR:-$(docker image inspect --format '{{index .Config.Labels "supervisor"}}' softengheigvd/base 2>/dev/null || true)}
    [ -z "${S6_OVERLAY_DIR:-}" ] || wanted=${SUPERVISOR:-s6-overlay}
    folder=${S6_OVERLAY_DIR:-target/s6-overlay-$s6_overlay}
    case $wanted in
        s6 | s6-overlay | '') ;;
        *) die "SUPERVISOR: '$wanted': must be s6-overlay or s6" ;;
    esac
    if [ "$wanted" != s6 ] && { [ -n "${S6_OVERLAY_DIR:-}" ] || download_s6_overlay "$folder"; }; then
        stage_s6_overlay "$folder"
        supervisor=s6-overlay
        say "supervisor: s6-overlay $s6_overlay"
    elif [ "$wanted" = s6-overlay ]; then
        die "s6-overlay $s6_overlay cannot be downloaded: give a folder that has its files by S6_OVERLAY_DIR, or SUPERVISOR=s6"
    else
        install -m 755 base/init "$work/base/rootfs/init"
        install -D -m 755 base/with-contenv "$work/base/rootfs/usr/bin/with-contenv"
        install -D -m 755 base/with-contenv "$work/base/rootfs/command/with-contenv"
        supervisor=s6
        [ -n "$wanted" ] || say "s6-overlay $s6_overlay cannot be downloaded"
        say "supervisor: Debian's s6"
    fi
}

# Puts together the folder that becomes the root of the base image.
stage_base() {
    cp base/Dockerfile "$work/base/"
    mkdir -p "$work/base/rootfs/etc/services.d"
    cp -R services.d "$work/base/rootfs/etc/services.available"
    cp -R services.d/forward services.d/join services.d/serf "$work/base/rootfs/etc/services.d/"
    cp -R base/cont-init.d "$work/base/rootfs/etc/"
    find "$work/base/rootfs/etc" -type d -exec chmod 755 {} +
    find "$work/base/rootfs/etc" -type f -exec chmod 644 {} +
    find "$work/base/rootfs/etc" \( -name run -o -name finish -o -path '*/cont-init.d/*' \) -exec chmod 755 {} +
}

# build NAME CONTEXT [DOCKER OPTION...]
build() {
    name=$1
    context=$2
    shift 2
    say "building softengheigvd/$name"
    docker build -t "softengheigvd/$name" "$@" "$context" >"$work/$name.log" 2>&1 || {
        tail -n 20 "$work/$name.log" >&2
        die "softengheigvd/$name: the build failed (all of it: $work/$name.log)"
    }
}

case ${1:-} in
    '') ;;
    -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    *) die "unknown argument '$1', see --help" ;;
esac
cd "$(dirname "$0")"
umask 022
PATH=${HOME:-/root}/.cargo/bin:$PATH # as in provision.sh
arch=$(uname -m)
case $arch in x86_64 | aarch64) ;; *) die "$arch: only x86_64 and aarch64 are supported" ;; esac

./provision.sh
mkdir -p "$work"
exec 9>"$work/lock"
flock 9 # the build context is for one build at a time
rm -rf "$work/base"
mkdir -p "$work/base/rootfs" "$work/base/s6-overlay"
choose_supervisor
find_debian
compile_tools
make_manual
stage_base
build base "$work/base" --build-arg DEBIAN="$debian" --build-arg SUPERVISOR="$supervisor"
build ha ha
build webapp webapp
docker image prune --force --filter label=softengheigvd.image --filter until=1h >/dev/null # younger ones may be another build's
for name in base ha webapp; do
    say "$(docker image inspect --format "softengheigvd/$name {{.Size}}" "softengheigvd/$name" | awk '{ printf "%s: %d MB", $1, $2 / 1e6 }')"
done
