#!/usr/bin/env bash
# Model folders as accidents leave them, given to the real services: each must end at once with the
# exit code of the error table and one line that names what is wrong.
set -uo pipefail
: "${LW_BUILD_ROOT:?}" "${LW_TEST_DATA:?}"

T=$(mktemp -d /tmp/lwt-XXXXXX) # mode 700, as a folder for sockets must be
trap 'rm -rf "$T"' EXIT
cd "$T" || exit 1
n_cases=0

# case_of EXIT TEXT COMMAND: the part $part, damaged by COMMAND inside it, makes $svc end with EXIT
# and a message that holds TEXT.
case_of() {
    local want=$1 text=$2 damage=$3 rc

    rm -rf model
    cp -r "$LW_TEST_DATA/spec/pipeline_tiny/model" model && chmod -R u+w model
    (cd "model/$part" && eval "$damage") || echo "# cannot prepare: $damage"
    timeout 10 "$LW_BUILD_ROOT/$svc/$svc" --model model --threads 1 --hub "ipc://$T/none" \
        >out 2>err </dev/null
    rc=$?
    n_cases=$((n_cases + 1))
    if [ $rc -eq "$want" ] && [ "$(wc -l <err)" -eq 1 ] && [ ! -s out ] && grep -qFe "$text" err; then
        echo "ok $n_cases - $svc: $damage"
    else
        echo "not ok $n_cases - $svc: $damage"
        echo "# expected exit $want and one line with '$text', got exit $rc:"
        sed 's/^/# /' err
    fi
}

while read -r svc part weights layers; do
    config=model/$part/config.json
    file=$weights.safetensors
    case_of 4 "$file" ": >$file"
    case_of 4 "cut short" "truncate -s 3000 $file"
    case_of 4 "cut short" "truncate -s -10 $file"
    case_of 4 "found a folder" "rm $file; mkdir $file"
    case_of 4 "special file" "rm $file; mkfifo $file"
    case_of 14 "symbolic links" "rm $file; ln -s $file $file"
    case_of 7 "holds no weights" "rm $file"
    case_of 7 "gone.safetensors" \
        "mv $file a; echo '{\"weight_map\":{\"a\":\"gone.safetensors\"}}' >$file.index.json"
    case_of 4 "plain file name" \
        "mv $file a; echo '{\"weight_map\":{\"a\":\"../a.safetensors\"}}' >$file.index.json"
    case_of 4 "$config" ": >config.json"
    case_of 4 "$config" "echo '[]' >config.json"
    case_of 4 "found a folder" "rm config.json; mkdir config.json"
    case_of 4 "special file" "rm config.json; mkfifo config.json"
    # A download that lost its target has a configuration, and must not run with guessed values.
    case_of 7 "$config" "ln -sf gone config.json"
    case_of 14 "$config" "rm config.json; ln -s config.json config.json"
    case_of 4 "$config" "sed -i -E 's/: [0-9]+,/: 99999999999,/' config.json"
    case_of 4 "$config" "sed -i -E 's/: [0-9]+,/: 0,/' config.json"
    case_of 7 "is missing" "sed -i -E 's/\"$layers\": [0-9]+/\"$layers\": 9/' config.json"
done <<'END'
encoder-svc text_encoder model num_hidden_layers
dit-svc transformer diffusion_pytorch_model n_layers
vae-svc vae diffusion_pytorch_model layers_per_block
END

svc=encoder-svc part=text_encoder
case_of 4 "num_hidden_layers is 1" \
    "sed -i -E 's/\"num_hidden_layers\": [0-9]+/\"num_hidden_layers\": 1/' config.json"
case_of 8 "--tokenizer" "rm -r ../tokenizer"
case_of 7 "merges.txt" "rm ../tokenizer/tokenizer.json ../tokenizer/merges.txt"
svc=dit-svc part=scheduler
case_of 4 "scheduler_config.json" "echo '{\"shift\": 1e999}' >scheduler_config.json"
case_of 7 "scheduler_config.json" "ln -sf gone scheduler_config.json"
echo "1..$n_cases"
