#!/bin/bash
# `latentwire bench`: every number is there and above zero, tables are tables, and what cannot be is
# refused before anything starts. How fast anything is, is not asserted.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

bench() { # FILE OPTION...
    local file=$1
    shift
    "$LW" bench "$@" >"$file"
}
# json FILE EXPRESSION: holds for the document `d`; `num` is a number above zero.
json() {
    python3 - "$1" "$2" <<'END'
import json, sys
d = json.load(open(sys.argv[1]))
num = lambda o, *keys: all(isinstance(o[k], (int, float)) and o[k] > 0 for k in keys)
null = lambda o, *keys: all(o[k] is None for k in keys)
about = d.get("bench") and num(d, "cores") and all(d[k] for k in ("version", "build", "isa_f32", "isa_int8"))
assert eval(sys.argv[2]), json.dumps(d, indent=1)
END
}
# table FILE ROWS...: Markdown tables of so many rows each, all rows of one with as many cells and
# as wide.
table() {
    python3 - "$@" <<'END'
import sys
tables, now = [], []
for line in open(sys.argv[1]).read().splitlines() + [""]:
    if line.startswith("|"):
        now.append(line)
    elif now:
        tables.append(now)
        now = []
assert [len(t) - 2 for t in tables] == [int(n) for n in sys.argv[2:]], tables
for t in tables:
    assert len({(len(row), row.count("|")) for row in t}) == 1, t
    assert set(t[1]) <= set("|:-"), t[1]
    assert all(row.endswith("|") and all(c.strip() for c in row[1:-1].split("|")) for row in t), t
END
}

check "operations" bench rows ops --filter "rmsnorm 352" --threads 1
check "are a table" table rows 2
check "with a unit" grep -q ' GB/s ' rows
check "and as JSON" bench rows.json ops --filter "rmsnorm 352" --threads 1 --json
check "with settings" json rows.json 'about and d["bench"] == "ops" and d["threads"] == 1 and d["backend"]'
check "with numbers" json rows.json \
    'len(d["operations"]) == 2 and all(num(o, "runs", "median_ms", "min_ms", "rate_gb_per_s", "ceiling_gb_per_s", "fraction") and o["ceiling"] == "copy" and o["min_ms"] <= o["median_ms"] for o in d["operations"])'
check "8 bits alone" bench int8.json ops --filter "rows 352" --precision int8 --threads 2 --json
check "is that" json int8.json '[o["operation"] for o in d["operations"]] == ["int8 rows"] and d["threads"] == 2'
check "an old instruction set" env LATENTWIRE_ISA=baseline "$LW" bench ops --filter "rmsnorm 352"
fails "a filter without a match" 2 'no operation with that' "$LW" bench ops --filter "sqrt"
fails "a filter that the precision excludes" 2 'no operation' "$LW" bench ops --filter int8 --precision f32
fails "an unknown precision" 2 'f32, int8 or all' "$LW" bench ops --precision int4
fails "an argument too many" 2 'unexpected argument' "$LW" bench ops linear

export LATENTWIRE_TEST_STEP_DELAY_MS=10 # so that each step of the tiny model is told
check "stages" bench two.json stages --model "$MODEL" --size 64x48 --size 32x32 --steps 4 \
    --precision f32 --precision dit=int8 --repeat 2 --threads 1 --json
check "with settings" json two.json 'about and d["bench"] == "stages" and d["repeat"] == 2'
check "of each precision" json two.json \
    '[r["precision"] for r in d["runs"]] == ["f32", "dit=int8"] and all(r["hub"] == "private" for r in d["runs"])'
check "and size" json two.json \
    'all([(s["width"], s["height"], s["steps"]) for s in r["sizes"]] == [(64, 48, 4), (32, 32, 4)] for r in d["runs"])'
check "with times" json two.json \
    'all(num(s, "n_tokens", "encode_ms", "denoise_first_step_ms", "denoise_step_ms", "denoise_ms", "decode_ms", "picture_ms") for r in d["runs"] for s in r["sizes"])'
check "that fit together" json two.json \
    'all(s["denoise_ms"] > s["denoise_step_ms"] and s["picture_ms"] > s["denoise_ms"] for r in d["runs"] for s in r["sizes"])'
check "and samples of them" json two.json \
    'all(0 < len(s["samples"]["denoise_step_ms"]) <= 6 and len(s["samples"]["encode_ms"]) == 2 for r in d["runs"] for s in r["sizes"])'
check "three services" json two.json \
    'all([s["service"] for s in r["services"]] == ["encoder-svc", "dit-svc", "vae-svc"] for r in d["runs"])'
check "with memory and start" json two.json \
    'all(num(s, "threads", "weights_bytes", "start_to_ready_ms", "first_result_ms", "start_to_first_ms", "peak_resident_bytes", "peak_own_bytes") and s["peak_own_bytes"] <= s["peak_resident_bytes"] for r in d["runs"] for s in r["services"])'
check "that say what they are" json two.json \
    'all(s["model_id"] and s["weights_digest"] and s["backend"] and s["threads"] == 1 for r in d["runs"] for s in r["services"])'
check "and compute as asked" json two.json \
    '[[s["precision"] for s in r["services"]] for r in d["runs"]] == [["f32"] * 3, ["f32", "int8", "f32"]]'
size=$(cat "$MODEL"/transformer/*.safetensors | wc -c)
check "weights as large as the file" json two.json "d['runs'][0]['services'][1]['weights_bytes'] == $size"
check "as tables" bench two stages --model "$MODEL" --size 64x48 --repeat 1 --steps 2
check "two of them" table two 1 3
unset LATENTWIRE_TEST_STEP_DELAY_MS

start_cluster "ipc://$T/f" "ipc://$T/b" ""
check "a hub that runs" wait_for 20 bench hub.json stages --hub "ipc://$T/f" --size 64x48 --steps 2 --repeat 1 --json
check "gives times" json hub.json \
    'd["runs"][0]["hub"].startswith("ipc") and num(d["runs"][0]["sizes"][0], "encode_ms", "denoise_ms", "decode_ms")'
check "and what is not ours to see is null" json hub.json \
    'all(s["backend"] and null(s, "threads", "weights_bytes", "start_to_ready_ms", "start_to_first_ms", "peak_resident_bytes", "peak_own_bytes") for s in d["runs"][0]["services"])'
fails "a precision for it" 2 'compute as they were started' \
    "$LW" bench stages --hub "ipc://$T/f" --precision int8
stop_cluster

fails "a bad size" 2 '--size' "$LW" bench stages --model "$MODEL" --size 65x48
fails "one step" 2 '--steps: expected' "$LW" bench stages --model "$MODEL" --steps 1
fails "bad threads" 2 '--threads' "$LW" bench stages --model "$MODEL" --threads many
fails "no model" 7 'nothing: no such file' "$LW" bench stages --model nothing
fails "a precision that is none" 2 'int4' "$LW" bench stages --model "$MODEL" --precision int4
check "an error is JSON too" bash -c \
    "'$LW' bench stages --model nothing --json 2>/dev/null | grep -q '\"exit_code\": *7'"
fails "nothing to measure" 2 'ops or stages' "$LW" bench
fails "something else" 2 'ops or stages' "$LW" bench speed
check "help" "$LW" bench --help
check "no process left" none_left
check "no folder left" no_private_dir
done_testing
