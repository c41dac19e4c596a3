#!/bin/bash
# What must not be in the text of the project: paths of one machine, emojis, notes to oneself, tabs
# and stray white space in C, committed // comments.
set -uo pipefail
cd "${LW_SOURCE_ROOT:?}" || exit 1

if ! git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    echo "not a git checkout: the list of files is not known" >&2
    exit 77
fi
bad=0
forbid() { # forbid WHAT PATTERN PATHSPEC...
    local what=$1 pattern=$2 hits
    shift 2
    # Data and third-party files are not our text; this file holds the patterns.
    hits=$(git grep -nIP "$pattern" -- "$@" ':!tests/data' ':!tests/fuzz/corpus' ':!models' \
        ':!LICENSE' ':!tests/lint/text.sh')
    [ -z "$hits" ] && return
    echo "$what:" >&2
    echo "$hits" >&2
    bad=1
}

forbid 'a path of one machine' '(^|[^\w.])/(work|home|root|Users)/' .
forbid 'an emoji' '[\x{1F000}-\x{1FAFF}\x{2600}-\x{27BF}\x{2B50}\x{FE0F}]' .
forbid 'a note to oneself' '\b(TODO|FIXME|XXX|HACK)\b' .
forbid 'a tab' '\t' '*.[ch]'
forbid 'white space at the end of a line' '[ \t]+$' '*.[ch]' '*.sh' '*.py' '*.build' '*.yaml'
forbid 'a // comment (committed comments are /* */)' '^\s*//|[;{}]\s*//' '*.[ch]'
exit $bad
