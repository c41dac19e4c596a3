#!/bin/bash
# Every header is self-sufficient and guarded: it compiles alone, and twice.
set -uo pipefail
cd "${LW_SOURCE_ROOT:?}" || exit 1

cc=${CC:-cc}
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
bad=0
while read -r header; do
    guard=LW_$(echo "${header%.h}" | tr 'a-z/-' 'A-Z__')_H
    # A folder named like a service drops its "-svc"; tests/tools stay short. Only the prefix counts.
    grep -q '^#ifndef LW_[A-Z0-9_]*_H$' "$header" ||
        { echo "$header: no include guard such as $guard" >&2 && bad=1; }
    printf '#include "%s"\n#include "%s"\n' "$header" "$header" >"$out/alone.c"
    $cc -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only -I. -I"${LW_BUILD_ROOT:?}" \
        "$out/alone.c" || { echo "$header does not compile alone" >&2 && bad=1; }
done < <(find common proto encoder-svc dit-svc vae-svc orchestrate -name '*.h' | sort)
exit $bad
