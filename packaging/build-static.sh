#!/usr/bin/env bash
# Builds the product: one static executable, reproducible, at most 12 MiB, in target/static/ARCH/afferent.
# Usage: packaging/build-static.sh [x86_64|aarch64]
#
# STATIC_ROUTE chooses how; auto takes the first that fits, and a failing build fails: no other is tried.
#   rustup    the compiler in PATH has the musl target (rustup target add ARCH-unknown-linux-musl, or the
#             distribution's package of it): the ordinary case
#   musl-gcc  it has not: the distribution's compiler builds the standard library too, for this architecture
#   zig       the same for any architecture, with the zig linker from Python packages (400 MB)
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(uname -m)
arch=${1:-$host}
target=$arch-unknown-linux-musl
route=${STATIC_ROUTE:-auto}
root=$PWD
limit=$((12 * 1024 * 1024))
case $arch in x86_64 | aarch64) ;; *) echo "build-static: x86_64 or aarch64, not '$arch'" >&2; exit 2 ;; esac

# A directory of its own: other flags in the daily one would rebuild everything, both ways.
export CARGO_TARGET_DIR=$root/target/static-build
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never} PATH=$PATH:$HOME/.cargo/bin
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(packaging/source-date.sh)}
export AFFERENT_GIT_ID=${AFFERENT_GIT_ID:-$(packaging/git-id.sh)}

has_target() { [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$target/lib" ]; }
if [ "$route" = auto ]; then
    if has_target; then route=rustup; elif [ "$arch" = "$host" ]; then route=musl-gcc; else route=zig; fi
fi

# Where the source lies must not show in the binary. Only prefixes are mapped here: any other path
# in these flags would change the names of symbols, and with them the bytes.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
maps=(
    "$root=/afferent"
    "$cargo_home=/cargo"
    "/usr/lib/rustlib/src/rust=/rust"
    "/usr/src/rustc=/rust"
)
# Calls are inlined as reluctantly as in a build for size: at level 2, 11.55 MB in place of 13.14.
flags=(-C target-feature=+crt-static -C strip=symbols -C llvm-args=-inline-threshold=75)
# Reports are compressed at level 1, which is the fast strategy: the others of zstd are 291 kB (measured with
# x86-64 and glibc; what is compressed is the same to the byte).
cflags=
for strategy in GREEDY LAZY LAZY2 BTLAZY2 BTOPT BTULTRA; do
    cflags+=" -DZSTD_EXCLUDE_${strategy}_BLOCK_COMPRESSOR"
done
for map in "${maps[@]}"; do
    flags+=("--remap-path-prefix=$map")
    cflags+=" -ffile-prefix-map=$map"
done
export "CFLAGS_${target//-/_}=$cflags"
under=${target//-/_}

# $1: cargo; the rest: its arguments. The flags travel separated by 0x1f, so that spaces are safe. The time is a
# fixed one here: C code that asked for it would else be compiled anew for every commit.
run_cargo() {
    local IFS=$'\x1f'
    CARGO_ENCODED_RUSTFLAGS="${flags[*]}" SOURCE_DATE_EPOCH=1 "$@"
}

build_rustup() {
    packaging/install-deps.sh static
    has_target || { echo "build-static: rustup target add $target (or STATIC_ROUTE=musl-gcc or zig)" >&2; exit 1; }
    if [ "$arch" = "$host" ]; then
        export "CC_$under=musl-gcc"
        run_cargo cargo build --release --locked --target "$target"
    else
        zig_tools
        run_cargo cargo-zigbuild zigbuild --release --locked --target "$target"
    fi
}

# A compiler with the target needs none of this, and only Debian 12 has these packages.
std_deps() {
    packaging/install-deps.sh static std && return
    echo "build-static: with rustup target add $target (Fedora: the package rust-std-static-$target) it builds without them" >&2
    exit 1
}

# The distribution's stable compiler accepts -Z build-std only with RUSTC_BOOTSTRAP; this one command sets it.
# It ships no start files for musl: the linker supplies them (link-self-contained=no).
build_std() {
    flags+=(-C link-self-contained=no)
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO=/usr/bin/cargo
    run_cargo "$@" --release --locked --target "$target" -Z build-std=std,panic_unwind
}

build_musl_gcc() {
    std_deps
    [ "$arch" = "$host" ] || { echo "build-static: musl-gcc builds for $host only; STATIC_ROUTE=zig for $arch" >&2; exit 2; }
    local lib=$CARGO_TARGET_DIR/lib unwind
    unwind=$(compgen -G '/usr/lib/llvm-*/lib/libunwind.a' | sort -V | tail -1)
    mkdir -p "$lib"
    cp "$unwind" "$lib/libunwind.a"
    # That libunwind was compiled against glibc with fortify: one symbol of it musl lacks.
    cat >"$lib/shim.c" <<-'END'
		#include <stdarg.h>
		#include <stdio.h>
		int __fprintf_chk(FILE *f, int flag, const char *format, ...) {
		    (void)flag;
		    va_list args;
		    va_start(args, format);
		    int n = vfprintf(f, format, args);
		    va_end(args);
		    return n;
		}
	END
    (cd "$lib" && musl-gcc -O2 -c shim.c -o shim.o && ar rD libunwind.a shim.o)
    # The search paths are in this wrapper and not in the flags, see above. Its name tells the compiler
    # which dialect it speaks.
    cat >"$lib/wrapped-gcc" <<-END
		#!/bin/sh
		exec musl-gcc "\$@" -L"$lib" -L"$(dirname "$(gcc -print-libgcc-file-name)")"
	END
    chmod +x "$lib/wrapped-gcc"
    # Debian's musl-gcc has no start files for static-pie; the result is a plain static executable.
    flags+=(-C relocation-model=static)
    export "CC_$under=musl-gcc" "CARGO_TARGET_${under^^}_LINKER=$lib/wrapped-gcc"
    build_std /usr/bin/cargo build
}

zig_tools() {
    packaging/install-deps.sh zig
    local venv=$root/target/tools/zig
    if [ ! -x "$venv/bin/cargo-zigbuild" ]; then
        /usr/bin/python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --require-virtualenv -r packaging/zig-tools.txt
    fi
    PATH=$venv/bin:$PATH
}

build_zig() {
    std_deps
    zig_tools
    build_std cargo-zigbuild zigbuild
}

echo "build-static: $target by the route $route, git id $AFFERENT_GIT_ID"
case $route in
rustup) build_rustup ;;
musl-gcc) build_musl_gcc ;;
zig) build_zig ;;
*) echo "build-static: STATIC_ROUTE is auto, rustup, musl-gcc or zig, not '$route'" >&2; exit 2 ;;
esac

# Accept the result only if it is what was promised.
built=$CARGO_TARGET_DIR/$target/release/afferent
refuse() { echo "build-static: $built $1" >&2; exit 1; }
if readelf -lW "$built" | grep -q INTERP; then refuse "asks for an interpreter"; fi
if readelf -dW "$built" | grep -q NEEDED; then refuse "needs a shared library"; fi
file -b "$built" | grep -Eq 'statically linked|static-pie linked' || refuse "is not static: $(file -b "$built")"
if [ "$arch" = "$host" ]; then
    # ldd fails on a static executable, with these words.
    (ldd "$built" 2>&1 || true) | grep -Eq 'not a dynamic executable|statically linked' || refuse "is dynamic for ldd"
fi
file -b "$built" | grep -q 'not stripped' && refuse "has symbols"
size=$(stat -c %s "$built")
[ "$size" -le $limit ] || refuse "has $size bytes, more than $limit"
if grep -aqF -e "$root" -e "$cargo_home" "$built"; then refuse "shows a path of the machine that built it"; fi
# It runs, and says what it is; the other architecture's where it can be emulated.
emulator=
if [ "$arch" != "$host" ]; then emulator=$(command -v "qemu-$arch-static" || command -v "qemu-$arch" || echo none); fi
if [ "$emulator" = none ]; then
    echo "build-static: not run: no qemu-$arch-static here (package qemu-user-static)"
else
    version="afferent $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1) ($AFFERENT_GIT_ID)"
    said=$($emulator "$built" --version) || refuse "does not run"
    [ "$said" = "$version" ] || refuse "says '$said' and not '$version'"
fi

out=target/static/$arch/afferent
mkdir -p "${out%/*}"
cp "$built" "$out.new"
touch -d "@$SOURCE_DATE_EPOCH" "$out.new"
mv "$out.new" "$out"
echo "build-static: ${version:-$out}"
echo "build-static: $out, $size bytes, sha256 $(sha256sum "$out" | cut -d' ' -f1)"
file -b "$out"
