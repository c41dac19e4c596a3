#!/bin/bash
# Who may include whom (docs/architecture.md): a folder's #include lines are compared with what it may use.
set -uo pipefail
cd "${LW_SOURCE_ROOT:?}" || exit 1

bad=0
complain() {
    echo "$1: $2" >&2
    bad=1
}

# What #include "..." a folder may have, as extended regular expressions on the path.
declare -A may=(
    [common]='^common/'
    [proto]='^(common|proto)/'
    [encoder-svc]='^(common|proto|encoder-svc)/'
    [dit-svc]='^(common|proto|dit-svc)/'
    [vae-svc]='^(common|proto|vae-svc)/'
    [orchestrate]='^(common|proto|orchestrate)/'
    [tests]='^(common|proto|encoder-svc|dit-svc|vae-svc|orchestrate|tests)/'
)
# Kernels belong to the services: the wire and the hub never touch the numbers in a tensor.
kernels='^common/(kernels|pool)\.h$|^common/cpu/'
# Libraries that only some files may know: "header pattern" -> "file pattern".
declare -A only=(
    ['^zmq']='^(proto/transport[a-z_]*\.[ch]|tests/.*)$'
    ['^msgpack']='^(proto/[a-z_]+\.[ch]|tests/.*)$'
    ['^(oneapi/)?dnnl']='^(common/cpu/onednn[a-z_]*\.[ch]|tests/.*)$'
    ['^cuda|^cublas|^cudnn']='^common/cuda/'
    ['^yaml']='^common/yaml\.c$'
    ['^stb/']='^common/[a-z_]+\.c$'
    ['^(pcre2|utf8proc)']='^(encoder-svc/|tests/)'
    ['^cmocka']='^tests/'
)

n=0
while IFS=: read -r file _ line; do
    folder=${file%%/*}
    n=$((n + 1))
    if [[ $line =~ \"([^\"]+)\" ]]; then
        target=${BASH_REMATCH[1]}
        [ "$target" = lw_version.h ] && continue # generated
        [[ $target == */* ]] || complain "$file" "\"$target\" is not written from the root"
        [ -f "$target" ] || complain "$file" "\"$target\" does not exist"
        [[ $target =~ ${may[$folder]} ]] || complain "$file" "$folder may not use $target"
        if [[ $folder =~ ^(proto|orchestrate)$ && $target =~ $kernels ]]; then
            complain "$file" "$folder may not use $target"
        fi
        [[ $target == tests/* && $folder != tests ]] && complain "$file" "nobody includes tests"
    elif [[ $line =~ \<([^\>]+)\> ]]; then
        target=${BASH_REMATCH[1]}
        for header in "${!only[@]}"; do
            if [[ $target =~ $header && ! $file =~ ${only[$header]} ]]; then
                complain "$file" "<$target> belongs to files that match ${only[$header]}"
            fi
        done
    fi
done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include' --include='*.[ch]' "${!may[@]}")

[ "$n" -gt 0 ] || complain "$PWD" "no #include found: is this the source tree?"
echo "checked $n #include lines"
exit $bad
