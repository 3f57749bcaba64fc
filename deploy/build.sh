#!/bin/sh
# Builds both images: outrigger-proxy (deploy/Containerfile) and outrigger (deploy/Containerfile.outrigger).
#
#   deploy/build.sh [REGISTRY/]        for example deploy/build.sh registry.example/mesh/
#
# Needs Rust, a C compiler and podman or docker ($ENGINE chooses). $TARGET is the platform of the images' programs (default: this
# machine's), $PROFILE cargo's profile (default release). A release for this machine's own platform is trained (`cargo xtask shipped`): a proxy
# for another one, which does not run here, takes a fifth more CPU time in user space.
set -eu

cd "$(dirname "$0")/.."
prefix=${1-}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
host=$(rustc -vV | sed -n 's/^host: //p')
target=${TARGET:-$host}
profile=${PROFILE:-release}

engine=${ENGINE:-}
if [ -z "$engine" ]; then
    for candidate in podman docker; do
        if command -v "$candidate" >/dev/null 2>&1; then
            engine=$candidate
            break
        fi
    done
fi
if [ -z "$engine" ]; then
    echo "neither podman nor docker is installed; \$ENGINE names another" >&2
    exit 1
fi

if [ "$profile" = release ] && [ "$target" = "$host" ]; then
    cargo xtask shipped
else
    # Linked statically, libc included. The target has to be named, or build scripts and macros would be linked so, too, and fail.
    RUSTFLAGS="${RUSTFLAGS-} -C target-feature=+crt-static" \
        cargo build --locked --profile "$profile" --target "$target" -p outrigger-proxy -p outrigger
fi

directory=$profile
if [ "$profile" = dev ]; then
    directory=debug
fi
# The images get these files and cannot get others.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "target/$target/$directory/outrigger-proxy" "target/$target/$directory/outrigger" "$context/"
for program in outrigger-proxy outrigger; do
    # The interpreter is what a dynamic program needs and an empty image has not.
    if readelf -l "$context/$program" | grep -q INTERP; then
        echo "$program is not static" >&2
        exit 1
    fi
done

"$engine" build --file deploy/Containerfile --tag "${prefix}outrigger-proxy:$version" "$context"
"$engine" build --file deploy/Containerfile.outrigger --tag "${prefix}outrigger:$version" "$context"
echo "built ${prefix}outrigger-proxy:$version and ${prefix}outrigger:$version"
