#!/bin/bash
# The demo model draws what prompts say: held-out prompts through the real processes, judged by
# models/train/score.py against the shares that models/demo/score.json states.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../integration/lib.sh"
train=$here/../../models/train
demo=${LW_DEMO_MODEL:-$LW_SOURCE_ROOT/models/demo}

if [ ! -f "$demo/model_index.json" ]; then
    echo "1..0 # SKIP models/demo is not there"
    exit 0
fi

picture() {
    "$LW" generate -q --model "$demo" --size 128x128 --steps 8 --seed "$2" -o "$T/$1.png" \
        "a red circle on a blue background"
}

size_at_most() {
    local bytes
    bytes=$(find "$demo" -type f -printf '%s\n' | awk '{ n += $1 } END { print n }')
    echo "$bytes bytes"
    [ "$bytes" -le "$1" ]
}

check "the model has at most 12,000,000 bytes" size_at_most 12000000
check "a picture is made" picture first 7
check "it is made again" picture second 7
check "both files are the same" same_bytes first.png second.png
check "another seed is made" picture other 8
check "it is another picture" eval '! cmp -s first.png other.png'

"$here/../interop/uv.sh" "$train/evaluate.py" --help >"$T/probe" 2>&1
rc=$?
if [ "$rc" -eq 77 ]; then
    skip "pictures show their prompts" "$(head -n 1 "$T/probe")"
else
    check "the evaluation starts" test "$rc" -eq 0
    # It fails too when shuffled pairs of prompt and picture pass.
    check "pictures show their prompts, and not those of others" uv run --quiet --script \
        "$train/evaluate.py" --build "$LW_BUILD_ROOT" --model "$demo" --count 24 \
        --against "$demo/score.json"
fi
done_testing
