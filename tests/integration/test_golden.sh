#!/bin/bash
# Prompt to pixels through hub and three services, against what diffusers' ZImagePipeline made of the
# same weights: at most 1 of 255 per channel.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# run FILE FOLDER: every case of a cases.json.
run() {
    local cases=$1 folder=$2
    python3 - "$cases" <<'PY' >"$T/cases.txt"
import json, shlex, sys
for name, c in json.load(open(sys.argv[1]))["cases"].items():
    args = ["--size", "%dx%d" % (c["width"], c["height"]),
            "--steps", str(c.get("steps", c.get("num_inference_steps"))),
            "--guidance", str(c.get("guidance", c.get("guidance_scale"))),
            "--cfg-normalization", str(float(c["cfg_normalization"])),
            "--cfg-truncation", str(c["cfg_truncation"]), "--seed", str(c["seed"]),
            "-n", str(c.get("n", c.get("num_images_per_prompt")))]
    if c["negative_prompt"]:
        args += ["--negative", c["negative_prompt"]]
    pngs = [p if isinstance(p, str) else p["file"] for p in c["png"]]
    print(name, ",".join(pngs), shlex.join(args + ["--", c["prompt"]]), sep="\t")
PY
    while IFS=$'\t' read -r name pngs args; do
        local i=0 n png list=()
        eval "list=($args)"
        IFS=, read -r -a pngs <<<"$pngs"
        n=${#pngs[@]}
        if ! "$LW" generate --model "$MODEL" -o "$T/$name-%d.png" "${list[@]}" >"$T/paths" 2>"$T/err"; then
            not_ok "case $name"
            sed 's/^/# /' "$T/err"
            continue
        fi
        for png in "${pngs[@]}"; do
            i=$((i + 1))
            [ -f "$folder/$png" ] || png=$name/$png
            check "case $name, picture $i of $n" same_pixels "$T/$name-$i.png" "$folder/$png" 1
        done
        check "case $name: one path a line" test "$(wc -l <"$T/paths")" -eq "$n"
    done <"$T/cases.txt"
}

run "$SPEC/cases.json" "$SPEC"
run "$LW_TEST_DATA/pipeline/cases.json" "$LW_TEST_DATA/pipeline"
check "no process left" none_left
check "no folder left" no_private_dir
done_testing
