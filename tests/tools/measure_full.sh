#!/bin/bash
# Time and memory of a model at full size: a hub and the three services at once, one picture.
#
#     tests/tools/measure_full.sh MODEL_DIR [SIZE] [STEPS]       needs a release build in build/
#
# MODEL_DIR: a model folder; when it does not exist, `latentwire-mkmodel full` makes one with random
# weights of Z-Image-Turbo's names and shapes (20 GB). Prints a Markdown table. Peak memory is what
# the kernel counted for each process: all resident pages (weights are mapped from the file, so the
# system can drop those), and the part that is the process's own.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${LATENTWIRE_BUILD:-$root/build}
model=${1:?usage: measure_full.sh MODEL_DIR [SIZE] [STEPS]}
size=${2:-256x256} steps=${3:-8}
[ -d "$model" ] || "$build/tests/tools/latentwire-mkmodel" full "$model" >&2

tmp=$(mktemp -d)
export LATENTWIRE_RUNTIME_DIR=$tmp
pids=()
stop() {
    kill "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
    rm -rf "$tmp"
}
trap stop EXIT

"$build/orchestrate/latentwire" hub 2>"$tmp/hub.log" &
pids+=($!)
for stage in encoder dit vae; do
    "$build/$stage-svc/$stage-svc" --model "$model" 2>"$tmp/$stage.log" &
    pids+=($!)
done
ready() {
    "$build/orchestrate/latentwire" status --json 2>/dev/null | grep -q '"n_workers": *3'
}
for ((i = 0; i < 600; i++)); do
    ready && break
    sleep 0.5
done

(
    # The part of a process that is its own is not kept as a peak by the kernel: look often.
    while sleep 0.2; do
        for i in 1 2 3; do
            awk '/RssAnon/ {print $2}' "/proc/${pids[i]}/status" >>"$tmp/anon-$i" 2>/dev/null || exit 0
        done
        awk '/MemAvailable/ {print $2}' /proc/meminfo >>"$tmp/available"
    done
) &
watcher=$!

# Twice: the first reads the weights from disk, the second finds them in memory (where they fit).
for run in 1 2; do
    "$build/orchestrate/latentwire" generate --quiet --size "$size" --steps "$steps" --seed "$run" \
        --json -o "$tmp/$run.png" "a red circle on a blue background, run $run" >"$tmp/$run.json"
done
kill "$watcher" 2>/dev/null || true

ms() { # RUN STAGE
    grep -o "\"$2\": *[0-9.]*" "$tmp/$1.json" | tail -n 1 | sed 's/.*: *//'
}
mib() {
    awk '{ printf "%.0f", $1 / 1024 }'
}
echo "$size, $steps steps, $(nproc) threads, $(uname -m), $(git -C "$root" rev-parse --short HEAD)"
echo
echo "| stage | first run, s | second run, s | peak resident, MiB | of it own, MiB |"
echo "|---|---|---|---|---|"
i=0
for row in encoder:encode dit:denoise vae:decode; do
    i=$((i + 1))
    printf '| %s | %.1f | %.1f | %s | %s |\n' "${row%:*}-svc" \
        "$(ms 1 "${row#*:}" | awk '{print $1 / 1000}')" "$(ms 2 "${row#*:}" | awk '{print $1 / 1000}')" \
        "$(awk '/VmHWM/ {print $2}' "/proc/${pids[i]}/status" | mib)" \
        "$(sort -n "$tmp/anon-$i" | tail -n 1 | mib)"
done
echo
echo "Least memory available on the machine: $(sort -n "$tmp/available" | head -n 1 | mib) MiB"
grep -ho 'load_ms=[0-9]*' "$tmp"/{encoder,dit,vae}.log | paste -sd ' '
