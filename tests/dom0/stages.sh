# shellcheck shell=sh disable=SC2154 # the caller sets top, here and log
# Sourced by what sets up below build/, with $top, $here and $log set: stages that are done again only when what they are
# made from has changed, and packages that are unpacked without being installed.

die() {
    echo "setup: $*" >&2
    exit 1
}

# attempt COMMAND...: runs it with its output in the log; on failure ends with one line that names the command.
attempt() {
    echo "\$ $*" >>"$log"
    "$@" >>"$log" 2>&1 || die "'$(echo "$*" | cut -c1-60)...' failed: $(tail -n 1 "$log") (all of it: build/setup.log)"
}

# from_registry COMMAND...: the same for a command whose failure most likely means that no registry can be reached.
from_registry() {
    echo "\$ $*" >>"$log"
    "$@" >>"$log" 2>&1 || die "'$1 $2' failed: is a package registry set up and reachable? (its words: build/setup.log)"
}

# stage TITLE FUNCTION KEY: runs FUNCTION unless it last ran for the same KEY.
stage() {
    stamp=$top/build/stamps/$2
    [ "$(cat "$stamp" 2>/dev/null)" = "$3" ] && return 0
    echo "setup: $1 ..." >&2
    began=$(date +%s)
    rm -f "$stamp"
    "$2"
    mkdir -p "$top/build/stamps"
    echo "$3" >"$stamp"
    echo "setup: $1: done in $(($(date +%s) - began)) s" >&2
}

# hash_of FILE...: one word that changes with any of their contents or names.
hash_of() {
    (cd "$here" && sha256sum "$@") | sha256sum | cut -d' ' -f1
}

# words FILE: the lines of a list without its comments.
words() {
    sed -e 's/#.*//' -e '/^ *$/d' "$1"
}

# package_lists: makes ready for installing or downloading packages.
package_lists() {
    grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release || die "this needs Debian 12 (bookworm)"
    [ "$(id -u)" = 0 ] || die "root is needed to get packages: run it as root once"
    [ "$(df -Pm "$top/build" | awk 'END { print $4 }')" -ge 3000 ] || die "3 GB of free disk space are needed below build/"
    from_registry apt-get update -q
}

# install_packages LIST: installs what is missing of a list.
install_packages() {
    missing=$(words "$1" | while read -r package; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
    done)
    [ -n "$missing" ] || return 0
    package_lists
    # shellcheck disable=SC2086 # one word is one package
    DEBIAN_FRONTEND=noninteractive from_registry apt-get install -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=600 $missing
}

# alone: waits for another set-up to end; the next one finds the stages done.
alone() {
    mkdir -p "$top/build"
    exec 9>"$top/build/setup.lock"
    flock 9
}

# with_libraries PACKAGE...: the packages, the kernel that a metapackage stands for, and every library they need.
with_libraries() {
    printf '%s\n' "$@"
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "$@" | sed -n -E 's/^ +(Pre)?Depends: ((lib|zlib|linux-image-)[^ <]*)$/\2/p'
}

# unpack_packages LIST DIR: the packages of a list, with their libraries, below DIR/root.
unpack_packages() {
    package_lists
    rm -rf "$2/debs" "$2/root"
    mkdir -p "$2/debs" "$2/root/usr/bin" "$2/root/usr/sbin" "$2/root/usr/lib" "$2/root/usr/lib64"
    ln -s usr/bin usr/sbin usr/lib usr/lib64 "$2/root/"
    cd "$2/debs" || exit
    # shellcheck disable=SC2046 # one word is one package
    from_registry apt-get download -q -o APT::Sandbox::User=root $(with_libraries $(words "$1") | sort -u)
    for deb in *.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$2/root" ||
            die "cannot unpack $deb below build/: is the disk full?"
    done
    cd "$top" || exit
    rm -rf "$2/debs"
}
