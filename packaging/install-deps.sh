#!/usr/bin/env bash
# Installs by name what a group of tasks needs and this machine lacks; does nothing where all is there.
# Usage: packaging/install-deps.sh GROUP...     groups: test demo instructions static std zig rpm packaging lint vm nats scale sbom-judges sbom-trivy sbom-grype page
set -euo pipefail
# One at a time: package managers do not wait for each other.
if [ -z "${INSTALL_DEPS_LOCKED:-}" ] && command -v flock >/dev/null; then
    INSTALL_DEPS_LOCKED=yes exec flock --close /usr "$0" "$@"
fi
cd "$(dirname "$0")/.."

# One need a line: what shows that it is there, its Debian packages, its Fedora packages.
#   name      a command        /path*   a file        py:module   a module of the system's Python
#   =name     a command that is taken out of a downloaded Debian package into target/tools, because
#             installing that package would start a service here; Fedora's package is installed
# A dash: that distribution needs nothing for it.
needs() {
    case $1 in
    test) cat <<-'END'
		cargo               cargo-web,rustc-web   cargo
		cc                  gcc,libc6-dev         gcc
		git                 git                   git-core
		rpm                 rpm                   rpm
		rpmbuild            rpm                   rpm-build
		/usr/bin/kill       procps                procps-ng
		python3             python3               python3
		py:google.protobuf  python3-protobuf      python3-protobuf
		strace              strace                strace
		unshare             util-linux            util-linux
		mkfs.ext4           e2fsprogs             e2fsprogs
		=nats-server        nats-server           nats-server
		END
        ;;
    demo) cat <<-'END'
		cargo               cargo-web,rustc-web   cargo
		cc                  gcc,libc6-dev         gcc
		rpm                 rpm                   rpm
		rpmbuild            rpm                   rpm-build
		python3             python3               python3
		END
        ;;
    instructions) cat <<-'END'
		cargo               cargo-web,rustc-web   cargo
		cc                  gcc,libc6-dev         gcc
		valgrind            valgrind              valgrind
		END
        ;;
    static) cat <<-'END'
		cc                  gcc,libc6-dev         gcc
		musl-gcc            musl-tools            musl-gcc
		readelf             binutils              binutils
		file                file                  file
		git                 git                   git-core
		END
        ;;
    std) # the standard library's source, for a compiler without the musl target
        cat <<-'END'
		/usr/bin/cargo      cargo-web             -
		/usr/bin/rustc      rustc-web             -
		/usr/lib/rustlib/src/rust/library/Cargo.toml  rust-web-src  -
		/usr/lib/llvm-*/lib/libunwind.a  libunwind-14-dev  -
		END
        ;;
    zig) cat <<-'END'
		/usr/lib/python3*/ensurepip/__init__.py  python3-venv  python3
		/usr/bin/qemu-aarch64*  qemu-user-static  qemu-user-static
		END
        ;;
    rpm) cat <<-'END'
		rpmbuild            rpm                   rpm-build
		gzip                gzip                  gzip
		python3             python3               python3
		/usr/lib/rpm/macros.d/macros.systemd  -   systemd-rpm-macros
		END
        ;;
    packaging) cat <<-'END'
		rpm                 rpm                   rpm
		rpmbuild            rpm                   rpm-build
		busybox             busybox-static        busybox
		systemctl           systemd               systemd
		rpmlint             rpmlint               rpmlint
		=promtool           prometheus            golang-github-prometheus
		gpg                 gnupg                 gnupg2
		rpmsign             rpm                   rpm-sign
		END
        ;;
    lint) cat <<-'END'
		shellcheck          shellcheck            ShellCheck
		systemd-analyze     systemd               systemd
		rpmlint             rpmlint               rpmlint
		=promtool           prometheus            golang-github-prometheus
		mandoc              mandoc                mandoc
		fish                fish                  fish
		/usr/bin/kill       procps                procps-ng
		zsh                 zsh                   zsh
		END
        ;;
    vm) cat <<-'END'
		qemu-system-x86_64  qemu-system-x86       qemu-system-x86-core
		qemu-img            qemu-utils            qemu-img
		debootstrap         debootstrap           debootstrap
		depmod              kmod                  kmod
		busybox             busybox-static        busybox
		mke2fs              e2fsprogs             e2fsprogs
		rpmbuild            rpm                   rpm-build
		python3             python3               python3
		openssl             openssl               openssl
		cargo               cargo-web,rustc-web   cargo
		END
        ;;
    scale) cat <<-'END'
		python3             python3               python3
		/usr/lib/python3*/ensurepip/__init__.py  python3-venv  python3
		END
        ;;
    sbom-judges) cat <<-'END'
		node                nodejs                nodejs
		npm                 npm                   nodejs-npm
		python3             python3               python3
		/usr/lib/python3*/ensurepip/__init__.py  python3-venv  python3
		END
        ;;
    sbom-trivy | sbom-grype) cat <<-'END'
		go                  golang                golang
		rpm                 rpm                   rpm
		rpmbuild            rpm                   rpm-build
		python3             python3               python3
		END
        ;;
    page) cat <<-'END'
		/usr/bin/chromium*  chromium              chromium
		chromedriver        chromium-driver       chromedriver
		python3             python3               python3
		rpm                 rpm                   rpm
		rpmbuild            rpm                   rpm-build
		END
        ;;
    nats) cat <<-'END'
		=nats-server        nats-server           nats-server
		END
        ;;
    *)
        echo "install-deps: no group '$1' (test demo instructions static std zig rpm packaging lint vm nats scale sbom-judges sbom-trivy sbom-grype page)" >&2
        exit 2
        ;;
    esac
}

is_there() {
    case $1 in
    py:*) /usr/bin/python3 -c "import ${1#py:}" 2>/dev/null ;;
    /*) compgen -G "$1" >/dev/null ;;
    =*) command -v "${1#=}" >/dev/null || [ -x "target/tools/bin/${1#=}" ] ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        echo "install-deps: root is needed (and there is no sudo) to run: $*" >&2
        exit 1
    fi
}

apt_updated=
apt_update() {
    [ -n "$apt_updated" ] || as_root apt-get update -qq
    apt_updated=yes
}

# Takes one command out of a Debian package: nothing is configured, nothing is started.
unpack() {
    local command=$1 package=$2 dir
    dir=$(mktemp -d)
    apt_update
    (cd "$dir" && apt-get download -qq -o APT::Sandbox::User=root "$package" && dpkg-deb -x ./*.deb tree)
    mkdir -p target/tools/bin
    find "$dir/tree" -type f -name "$command" -perm -u+x -exec cp {} target/tools/bin/ \;
    rm -rf "$dir"
    [ -x "target/tools/bin/$command" ] || { echo "install-deps: $package has no $command" >&2; exit 1; }
    echo "install-deps: $command from the package $package, in target/tools/bin"
}

PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin
manager=none
if command -v apt-get >/dev/null; then manager=apt; elif command -v dnf >/dev/null; then manager=dnf; fi

# What is not here: into lacking, and the packages that have it into wanted.
look() {
    local group shows deb fedora packages names
    wanted=() lacking=()
    for group in "$@"; do
        needs "$group" >/dev/null
        while read -r shows deb fedora; do
            is_there "$shows" && continue
            packages=$deb
            [ $manager != dnf ] || packages=$fedora
            [ "$packages" != - ] || continue
            if [ $manager = apt ] && [ "${shows#=}" != "$shows" ]; then
                unpack "${shows#=}" "$packages"
                continue
            fi
            lacking+=("${shows#=}")
            IFS=, read -ra names <<<"$packages"
            wanted+=("${names[@]}")
        done < <(needs "$group")
    done
    [ ${#wanted[@]} = 0 ] || mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | sort -u)
}

# Twice if need be: a package may take the place of another one that has been here, and with it of a command.
for _ in 1 2; do
    look "$@"
    [ ${#lacking[@]} -gt 0 ] || exit 0
    echo "install-deps: ${lacking[*]} not here; installing ${wanted[*]}"
    case $manager in
    apt)
        apt_update
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" </dev/null
        ;;
    dnf) as_root dnf install -y -q "${wanted[@]}" </dev/null ;;
    none)
        echo "install-deps: neither apt-get nor dnf is here; install these yourself: ${lacking[*]}" >&2
        exit 1
        ;;
    esac
done
look "$@"
[ ${#lacking[@]} = 0 ] || { echo "install-deps: ${lacking[*]} still not here after installing ${wanted[*]}" >&2; exit 1; }
