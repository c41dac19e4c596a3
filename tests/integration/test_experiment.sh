#!/bin/bash
# Experiments with the demo model through the real services: killed and continued, nothing made
# twice, the same pictures again.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
: "${LW_SOURCE_ROOT:?}"
DIR=$LW_SOURCE_ROOT/orchestrate/experiment
FIRST=$DIR/001-thinking-block-effect.yaml
DEMO=$LW_SOURCE_ROOT/models/demo

check "all that ship can be run" "$LW" experiment check "$DIR"/0*.yaml
check "at least 12 of them" test "$(find "$DIR" -name '0*.yaml' | wc -l)" -ge 12
check "list" bash -c "'$LW' experiment list | grep -qE '^001-thinking-block-effect +36 cells'"
printf 'name: broken\nprompts: [x]\nsettings:\n  colour: red\n' >broken.yaml
fails "an unknown option" 4 'broken.yaml:4: there is no option "colour"' "$LW" experiment run broken.yaml

pictures() { find r/cells -name '*.png' -printf '%f %i %T@\n' 2>/dev/null | sort; }
some() { [ "$(pictures | wc -l)" -ge "$1" ]; }

# Killed in the middle, and run again: what was there is not touched.
"$LW" experiment run --model "$DEMO" --threads 1 --workers dit=2 -q -o r "$FIRST" >/dev/null 2>&1 &
pid=$!
check "some cells are made" wait_for 60 some 4
kill -KILL $pid
wait $pid 2>/dev/null
pictures >before
check "it was killed half way" test "$(wc -l <before)" -lt 36
none_left 10
check "run again" bash -c "'$LW' experiment run --model '$DEMO' --threads 1 --workers dit=2 --json -q -o r '$FIRST' >run.json"
pictures >after
check "no cell was made twice" test -z "$(comm -23 before after)"
check "all are there" test "$(wc -l <after)" -eq 36
check "results are whole" python3 - "$(wc -l <before)" <<'PY'
import csv, json, os, sys
run, r = json.load(open("run.json")), json.load(open("r/results.json"))
assert run["failed"] == 0 and run["found"] + run["made"] == 36 == len(r["cells"]), run
assert 0 < run["found"] <= int(sys.argv[1]), run
for c in r["cells"]:
    assert c["status"] == "done" and os.path.exists("r/" + c["file"]), c
    assert c["at"]["think"] == "none" or "ssim" in c["measures"], c
assert len(list(csv.DictReader(open("r/results.csv")))) == 36
assert len({c["text_digest"] for c in r["cells"]}) == 12
PY
check "sheet and report" test -s r/contact.png -a -s r/report.html
check "a third run makes nothing" bash -c "'$LW' experiment run --model '$DEMO' --threads 1 --json -q -o r '$FIRST' | grep -q '\"made\": 0'"
# A damaged picture, and one of another request, are made again.
read -r one two <<<"$(cut -d ' ' -f 1 after | head -2 | tr '\n' ' ')"
cp "r/cells/$one" kept.png
head -c 3000 kept.png >"r/cells/$one"
cp kept.png "r/cells/$two"
check "what is damaged or of another request is made again" bash -c "'$LW' experiment run --model '$DEMO' --threads 1 --json -q -o r '$FIRST' | grep -q '\"made\": 2'"
check "with the same bytes" same_bytes kept.png "r/cells/$one"

# A hub that stays: two denoisers, other threads; every picture is the same.
MODEL=$DEMO
start_cluster "ipc://$LATENTWIRE_RUNTIME_DIR/frontend.sock" "ipc://$LATENTWIRE_RUNTIME_DIR/backend.sock" "" 2
all_there() { [ "$("$LW" status | grep -c ' idle ')" -eq 4 ]; }
check "a hub with four workers" wait_for 60 all_there
replay_all() {
    local f
    for f in r/cells/*.png; do
        "$LW" replay -q "$f" || return 1
    done
}
check "replay says equal for every picture" replay_all
check "a part of it by that hub" "$LW" experiment run -q --limit 12 -o s "$FIRST"
check "both denoisers have worked" bash -c "'$LW' status --json | python3 -c '
import json, sys
w = [w for w in json.load(sys.stdin)[\"workers\"] if w[\"role\"] == \"denoiser\"]
assert len(w) == 2 and all(x[\"tasks_done\"] > 0 for x in w), w'"
check "compare: equal" bash -c "'$LW' experiment compare s r | tail -1 | grep -q '^12 equal, 0 different, 24 without'"
printf 'name: bad\nprompts: [a red circle]\naxes: {size: [64x64, 16384x16384]}\n' >bad.yaml
rc=0
"$LW" experiment run -q -o b bad.yaml >out 2>err || rc=$?
check "a cell that fails is told" bash -c "test $rc -ne 0 && grep -q '1 of 2 cells failed' err"
check "and the other is made" bash -c "grep -c '\"done\"' b/results.json | grep -qx 1"
stop_cluster

check "one of the project's by its name" \
    bash -c "'$LW' experiment run --dry-run 001-thinking-block-effect | grep -c seed= | grep -qx 36"
fails "a name that none has" 7 'neither a file nor the name' "$LW" experiment run --dry-run 099
check "no process left" none_left
done_testing
