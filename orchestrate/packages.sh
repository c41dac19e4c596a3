# Sourced by orchestrate/quickstart, tests/run and .ci/run: Debian packages by name, installed only
# when they are missing. docs/architecture.md says what each is for.
# shellcheck shell=bash

BUILD_PACKAGES="gcc libc6-dev meson ninja-build pkg-config libzmq3-dev libmsgpack-dev \
libjansson-dev libpcre2-dev libutf8proc-dev libsodium-dev libyaml-dev libdnnl-dev libstb-dev"
# uv, for the tests that talk to Python libraries, comes from PyPI into the build folder.
TEST_PACKAGES="libcmocka-dev libpng-dev python3 python3-venv"
# Chromium opens the report of an experiment (tests/browser); without it that suite is skipped.
CI_PACKAGES="clang clang-format libclang-rt-14-dev chromium"

# need_packages NAME...: make sure they are installed; everything it prints goes to stderr.
need_packages() {
    local missing=() as_root=() name
    if ! command -v dpkg-query >/dev/null; then
        echo "This is not a Debian system: make sure that what these packages hold is there:" \
            "$*" >&2
        return 0
    fi
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed ||
            missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "Missing packages, and neither root nor sudo to install them:" \
                "apt-get install ${missing[*]}" >&2
            return 1
        fi
        as_root=(sudo)
    fi
    echo "Installing: ${missing[*]}" >&2
    # The lists of a fresh image are empty, and those of an old one may be stale.
    apt_install "${missing[@]}" || {
        "${as_root[@]}" apt-get update -q >&2 && apt_install "${missing[@]}"
    }
}

apt_install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "$@" >&2
}
