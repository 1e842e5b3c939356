#!/bin/sh
# Compiles the tools and builds the images softengheigvd/base, softengheigvd/ha
# and softengheigvd/webapp.
#
# Usage: ./build-images.sh [--no-key]
#        ./build-images.sh rust    build only softengheigvd/rust, with Debian 13's
#                                  Rust, in which test.sh lints
#
# --no-key    do not put the gossip key into the images. Use this for images that
#             leave this machine: whoever has an image has its key. Otherwise
#             they contain the key in .serf-key, which is created if missing.
#
# SUPERVISOR=s6|s6-overlay   supervisor in the images: s6, which is Debian's
#                            package and the default, or s6-overlay, which is
#                            downloaded
# S6_OVERLAY_DIR=DIR         directory with an s6-overlay release that you have
#                            downloaded; implies SUPERVISOR=s6-overlay
set -eu
cd "$(dirname "$0")"
. ./scripts.sh

s6_overlay=3.2.3.0
s6_overlay_sums='
b720f9d9340efc8bb07528b9743813c836e4b02f8693d90241f047998b4c53cf  s6-overlay-noarch.tar.xz
a60dc5235de3ecbcf874b9c1f18d73263ab99b289b9329aa950e8729c4789f0e  s6-overlay-symlinks-noarch.tar.xz
a93f02882c6ed46b21e7adb5c0add86154f01236c93cd82c7d682722e8840563  s6-overlay-x86_64.tar.xz
0952056ff913482163cc30e35b2e944b507ba1025d78f5becbb89367bf344581  s6-overlay-aarch64.tar.xz
'
imported=softengheigvd/debian:trixie-slim # its own name, because it is not Docker's image of that name
work=target/images

# Compiles the tools into $work/base/rootfs/usr/local/bin; a tool is named after its crate's directory.
compile_tools() {
    triple=$arch-unknown-linux-gnu
    say "compiling the tools"
    RUSTFLAGS=$static CARGO_TERM_PROGRESS_WHEN=never \
        logged "$work/cargo.log" cargo build --release --locked --target "$triple" --target-dir target
    for main in crates/*/src/main.rs; do
        tool=${main#crates/}
        tool=${tool%%/*}
        case $tool in
            deploy-nodes | manual | scale-nodes) continue ;; # run on the host
        esac
        install -D -m 755 "target/$triple/release/$tool" "$work/base/rootfs/usr/local/bin/$tool"
    done
}

# Generates man pages, and completions for `docker exec -it ha bash`.
make_manual() {
    "target/$triple/release/manual" "$work/manual" || die "cannot generate the man pages"
    for tool in "$work/base/rootfs/usr/local/bin"/*; do
        tool=${tool##*/}
        install -D -m 644 "$work/manual/man1/$tool.1" "$work/base/rootfs/usr/local/share/man/man1/$tool.1"
        install -D -m 644 "$work/manual/bash/$tool" "$work/base/rootfs/usr/local/share/bash-completion/completions/$tool"
    done
    gzip -9n "$work/base/rootfs/usr/local/share/man/man1"/*
}

# Sets $debian to the base image: pulled, or bootstrapped from this machine's Debian mirror.
find_debian() {
    debian=debian:trixie-slim
    if docker image inspect "$debian" >/dev/null 2>&1; then
        say "Debian: $debian is present"
    elif docker image inspect "$imported" >/dev/null 2>&1; then
        debian=$imported
        say "Debian: $debian is present, from an earlier debootstrap"
    elif
        say "pulling $debian"
        attempt "$work/pull.log" timeout --foreground 600 docker pull "$debian"
    then
        say "Debian: $debian pulled"
    else
        say "cannot pull $debian; building $imported with debootstrap"
        bootstrap_debian
        debian=$imported
    fi
}

# Removes what a killed run left behind. The directory may have a fixed name because only root can write to its parent.
bootstrap_debian() {
    [ "$(id -u)" = 0 ] || die "debootstrap needs root: sudo $0"
    mirror=$(debian_mirror Debian)
    if [ -z "$mirror" ]; then
        logged "$work/debootstrap.log" apt-get -o APT::Update::Error-Mode=any update
        mirror=$(debian_mirror Debian)
    fi
    [ -n "$mirror" ] || die "apt knows no Debian mirror: run 'docker pull $debian', or fix /etc/apt"
    security=$(debian_mirror Debian-Security)

    root=/var/lib/softengheigvd-debian
    remove_root
    check_space "${root%/*}" 600
    trap remove_root EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    logged "$work/debootstrap.log" debootstrap --variant=minbase trixie "$root" "$mirror"
    if [ -n "$security" ]; then
        echo "deb $security trixie-security main" >>"$root/etc/apt/sources.list"
    fi
    printf 'path-exclude /usr/share/%s/*\n' doc info locale man >"$root/etc/dpkg/dpkg.cfg.d/slim"
    echo 'path-include /usr/share/doc/*/copyright' >>"$root/etc/dpkg/dpkg.cfg.d/slim"
    find "$root/usr/share/doc" ! -name copyright ! -type d -delete
    rm -rf "$root"/usr/share/info/* "$root"/usr/share/locale/* "$root"/usr/share/man/* \
        "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*
    tar -C "$root" -c . | docker import -c 'CMD ["bash"]' - "$imported" >/dev/null
    remove_root
    trap - EXIT HUP INT TERM
}

remove_root() {
    awk -v root="$root/" 'index($2, root) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount
    rm -rf --one-file-system "$root"
}

# Downloads the release and verifies the checksums: a proxy's error page must never be stored under a file's name.
download_s6_overlay() {
    have curl || ./provision.sh curl ca-certificates
    mkdir -p "$cache"
    for file in $s6_overlay_files; do
        [ ! -e "$cache/$file" ] || continue
        say "downloading $file"
        curl -fsSL --connect-timeout 5 --max-time 120 -o "$cache/.new" \
            "https://github.com/just-containers/s6-overlay/releases/download/v$s6_overlay/$file" 2>"$work/curl.log" ||
            die "s6-overlay cannot be downloaded: $(tail -n 1 "$work/curl.log"): set S6_OVERLAY_DIR to a directory with its files, or use Debian's s6 by not setting SUPERVISOR"
        is_released "$cache/.new" "$file" ||
            die "s6-overlay: the download of $file is not the released file, but perhaps a proxy's page: $(head -c 60 "$cache/.new" | tr -cd '[:print:]')"
        mv "$cache/.new" "$cache/$file"
    done
}

# is_released PATH NAME: true if the file has the checksum of the release's file NAME.
is_released() {
    sum=$(echo "$s6_overlay_sums" | awk -v name="$2" '$2 == name { print $1 }')
    echo "$sum  $1" | sha256sum --check --status
}

# Copies the release from S6_OVERLAY_DIR, so that the next build finds it without that variable.
copy_s6_overlay() {
    mkdir -p "$cache"
    for file in $s6_overlay_files; do
        [ -e "$S6_OVERLAY_DIR/$file" ] || die "S6_OVERLAY_DIR: $S6_OVERLAY_DIR/$file of s6-overlay $s6_overlay is missing"
        is_released "$S6_OVERLAY_DIR/$file" "$file" ||
            die "S6_OVERLAY_DIR: $S6_OVERLAY_DIR/$file has a wrong checksum: it is not the file of s6-overlay $s6_overlay"
        cp "$S6_OVERLAY_DIR/$file" "$cache/.new"
        mv "$cache/.new" "$cache/$file"
    done
}

# Sets $supervisor and stages its files.
choose_supervisor() {
    s6_overlay_files="s6-overlay-noarch.tar.xz s6-overlay-symlinks-noarch.tar.xz s6-overlay-$arch.tar.xz"
    cache=target/s6-overlay-$s6_overlay
    supervisor=${SUPERVISOR:-${S6_OVERLAY_DIR:+s6-overlay}}
    supervisor=${supervisor:-s6}
    case $supervisor in
        s6)
            install -m 755 base/init "$work/base/rootfs/init"
            install -D -m 755 base/with-contenv "$work/base/rootfs/usr/bin/with-contenv"
            install -D -m 755 base/with-contenv "$work/base/rootfs/command/with-contenv"
            say "supervisor: Debian's s6"
            ;;
        s6-overlay)
            if [ -n "${S6_OVERLAY_DIR:-}" ]; then copy_s6_overlay; else download_s6_overlay; fi
            for file in $s6_overlay_files; do cp "$cache/$file" "$work/base/s6-overlay/"; done
            say "supervisor: s6-overlay $s6_overlay"
            ;;
        *) die "SUPERVISOR: '$supervisor': must be s6 or s6-overlay" ;;
    esac
}

# Stages the gossip key, readable only by the images' user.
stage_key() {
    install -d -m 700 "$work/base/key"
    [ "$with_key" = yes ] || return 0
    install -d -m 700 .serf-key
    [ -s .serf-key/key ] || {
        say "creating the gossip key: .serf-key/key"
        (umask 077 && head -c 32 /dev/urandom | base64 >.serf-key/.new)
        mv .serf-key/.new .serf-key/key
    }
    install -m 400 .serf-key/key "$work/base/key/encrypt_key"
}

# Assembles the build contexts, with fixed modes whatever the umask of the clone.
stage() {
    cp base/Dockerfile "$work/base/"
    mkdir -p "$work/base/rootfs/etc/services.d"
    cp -R services.d "$work/base/rootfs/etc/services.available"
    for service in forward join serf; do
        cp -R "services.d/$service" "$work/base/rootfs/etc/services.d/"
    done
    cp -R base/cont-init.d "$work/base/rootfs/etc/"
    install -m 755 base/serf "$work/base/rootfs/usr/local/bin/serf"
    cp -R ha webapp "$work/"
    chmod -R u=rwX,go=rX "$work/base/rootfs" "$work/ha" "$work/webapp"
    find "$work/base/rootfs/etc" \( -name run -o -name finish -o -path '*/cont-init.d/*' \) -exec chmod 755 {} +
}

# build NAME [DOCKER OPTION...]: builds the image softengheigvd/NAME from $work/NAME.
build() {
    name=$1
    shift
    say "building softengheigvd/$name"
    logged "$work/$name.log" docker build --force-rm -t "softengheigvd/$name" "$@" "$work/$name"
}

# Debian 13's Rust, the oldest version that compiles the code.
build_rust() {
    mkdir -p "$work/rust"
    printf '%s\n' "FROM $debian" \
        'RUN apt-get update && apt-get install -y --no-install-recommends cargo g++ rust-clippy rustfmt && rm -rf /var/lib/apt/lists/*' \
        >"$work/rust/Dockerfile"
    build rust
}

# check_space DIR MB: fails if the disk has less free space than what comes next needs.
check_space() {
    free=$(df -Pm "$1" | awk 'END { print $4 }')
    [ "$free" -ge "$2" ] || die "$1 has $free MB free: about $2 MB are needed"
}

with_key=yes
case $#/${1:-} in
    0/ | 1/rust) ;;
    1/--no-key) with_key=no ;;
    1/-h | 1/--help) help ;;
    *) die "unknown argument '$*', see --help" ;;
esac
umask 022
arch=$(uname -m)
case $arch in x86_64 | aarch64) ;; *) die "$arch: only x86_64 and aarch64 are supported" ;; esac

./provision.sh
mkdir -p "$work"
exec 9>"$work/lock"
flock 9 # one build at a time may use the build contexts
docker image inspect softengheigvd/base >/dev/null 2>&1 || {
    check_space . 500
    check_space "$(docker info --format '{{.DockerRootDir}}' 2>/dev/null || docker info --format '{{.Store.GraphRoot}}')" 1500 # the second form is Podman's
}
find_debian
if [ "${1:-}" = rust ]; then
    build_rust
    exit
fi
rm -rf "$work/base" "$work/ha" "$work/webapp"
mkdir -p "$work/base/rootfs" "$work/base/s6-overlay"
choose_supervisor
compile_tools
make_manual
stage
stage_key
build base --build-arg DEBIAN="$debian" --build-arg SUPERVISOR="$supervisor"
build ha
build webapp
docker image prune --force --filter label=softengheigvd.image --filter until=1h >/dev/null # newer ones may belong to another build
for name in base ha webapp; do
    say "$(docker image inspect --format "softengheigvd/$name {{.Size}}" "softengheigvd/$name" | awk '{ printf "%s: %d MB", $1, $2 / 1e6 }')"
done
