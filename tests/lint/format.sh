#!/bin/bash
# All C is as .clang-format says.
set -uo pipefail
cd "${LW_SOURCE_ROOT:?}" || exit 1

tool=$(command -v clang-format-14 || command -v clang-format)
if [ -z "$tool" ]; then
    echo "clang-format is not installed" >&2
    exit 77
fi
# Another version formats otherwise; the file is written for the one of Debian 12.
if ! "$tool" --version | grep -q 'version 14\.'; then
    echo "$tool is not version 14" >&2
    exit 77
fi
git ls-files -z '*.[ch]' | xargs -0 "$tool" --dry-run -Werror
