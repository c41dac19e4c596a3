#!/bin/bash
# The text that is tokenized, through hub and encoder: transformers' own chat template says what it must
# be. One cluster for all cases.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../integration/lib.sh"
script=$here/prompt_cases.py

"$here/uv.sh" "$script" --help >"$T/probe" 2>&1
rc=$?
if [ "$rc" -eq 77 ]; then
    echo "1..0 # SKIP $(head -n 1 "$T/probe")"
    exit 0
fi

frontend=ipc://$T/run/f.sock
start_cluster "$frontend" "ipc://$T/run/b.sock" "" 0
# The first job waits for the encoder.
check "the cluster answers" "$LW" prompt --hub "$frontend" "a cat"
uv run --quiet --script "$script" --hub "$frontend" --tokenizer "$MODEL/tokenizer" \
    --client "$here/../../orchestrate/python/latentwire_client.py" >cases 2>errors
check "all cases were asked for" test $? -eq 0
while IFS= read -r line; do
    case $line in
    'ok '*) ok "${line#ok }" ;;
    'not ok '*) not_ok "${line#not ok }" ;;
    *) echo "$line" ;;
    esac
done <cases
sed 's/^/# /' errors
check "at least 60 cases" test "$(grep -cE '^(not )?ok ' cases)" -ge 60
stop_cluster
done_testing
