#!/bin/bash
# Conversations and encoder controls from the command line: what is sent, what the files say of it, and
# that the same picture can be made again.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

frontend=ipc://$T/run/f.sock
start_cluster "$frontend" "ipc://$T/run/b.sock" ""
export LATENTWIRE_HUB=$frontend
draw() {
    local name=$1
    shift
    "$LW" generate -q --size 64x48 --steps 2 --seed 42 -o "$name.png" "$@"
}

# json FILE EXPRESSION: a Python expression over `j` holds.
json() {
    python3 -c "import json, sys
j = json.loads(open(sys.argv[1]).read().splitlines()[0])
assert ($2), j" "$1"
}
manifest() {
    "$LW" show --json "$1" >m.json && json m.json "$2"
}

# Nothing new in a picture that uses nothing new.
check "a plain picture" draw plain "a cat"
check "has the keys it had" manifest plain.png 'not {"messages", "layer_blend", "long_prompt", "weighting", "noise",
    "noise_seed", "keep", "blend_prompt", "blend_share", "n_rows", "row_loss", "variables"} & set(j)'

# Each control alone changes the picture, is in the file, and is replayed.
prove() {
    local name=$1 expression=$2
    shift 2
    check "$name" draw "$name" "$@"
    check "$name: another picture" bash -c '! cmp -s "$1" "$2"' _ plain.png "$name.png"
    check "$name: in the manifest" manifest "$name.png" "$expression"
    check "$name: replay" bash -c '"$0" replay "$1" | grep -q "^equal: .* every byte"' "$LW" "$name.png"
}
echo '[{"role": "user", "content": "a dog"}, {"role": "assistant", "content": "Here."}, {"role": "user", "content": "a cat"}]' >talk.json
prove layers 'j["layer_blend"] == [-2, 0.7, -3, 0.3] and "layer" not in j' --layers=-2:0.7,-3:0.3 "a cat"
prove weighting 'j["weighting"] is True and j["prompt"] == "a (cat:1.5)"' --weighting "a (cat:1.5)"
prove noise 'j["noise"] == 0.5 and j["noise_seed"] == 42' --noise 0.5 "a cat"
prove keep 'j["keep"] == "prompt" and j["n_rows"] < j["n_tokens"]' --keep prompt "a cat"
prove blend 'j["blend_prompt"] == "a dog" and j["blend_share"] == 0.25' --blend "a dog" --blend-share 0.25 "a cat"
prove pool 'j["long_prompt"] == "pool" and j["n_rows"] == 9 and 0 < j["row_loss"] <= 1' --long-prompt pool --max-tokens 9 "a cat"
prove messages 'j["prompt"] == "a cat" and len(json.loads(j["messages"])) == 2' --messages talk.json
prove all 'j["n_rows"] == 8' --layers=-2,-3:0.5 --weighting --noise 0.1 --noise-seed 5 --keep no_system --blend "(a dog:0.5)" \
    --blend-share 0.4 --long-prompt attention_pool --max-tokens 8 --system "S." "a (cat:1.5)"
check "show names them" bash -c '"$0" show all.png | grep -q "^noise seed  *5$" && "$0" show all.png | grep -q "^layer blend  *\[-2.0,1.0,-3.0,0.5\]$"' "$LW"

# Noise has the seed of each picture, so a picture of several is the one of its seed.
check "two pictures with noise" draw two -n 2 --noise 0.5 "a cat"
check "the first is the one above" same_bytes two-1.png noise.png
check "the second one alone" "$LW" generate -q --size 64x48 --steps 2 --seed 43 --noise 0.5 -o second.png "a cat"
check "is the second of two" same_bytes two-2.png second.png
check "one noise for both" draw fixed -n 2 --noise 0.5 --noise-seed 1 "a cat"
check "is in both" bash -c '"$0" show fixed-1.png | grep -q "^noise seed  *1$" && "$0" show fixed-2.png | grep -q "^noise seed  *1$"' "$LW"

# The negative text is encoded as it is.
check "controls and guidance" draw guided --guidance 2 --negative "(blurry" --weighting --keep prompt --noise 0.1 "a (cat:1.5)"
check "replay of that" bash -c '"$0" replay guided.png | grep -q ^equal' "$LW"

# Stage by stage: the file between them has the settings.
check "encode" "$LW" encode -q --layers=-2:0.7,-3:0.3 -o e.safetensors "a cat"
check "the settings are in the file" python3 -c '
import json
d = open("e.safetensors", "rb").read()
m = json.loads(json.loads(d[8:8 + int.from_bytes(d[:8], "little")])["__metadata__"]["latentwire"])
assert m["layer_blend"] == [-2, 0.7, -3, 0.3] and m["prompt"] == "a cat", m'
check "denoise" "$LW" denoise -q --size 64x48 --steps 2 --seed 42 -o l.safetensors e.safetensors
check "decode" "$LW" decode -q -o chain.png l.safetensors
check "the same picture as at once" same_bytes chain.png layers.png

# The verb prompt.
check "prompt" bash -c '"$0" prompt "a \"cat\"" >p.txt' "$LW"
check "shows text, count and tokens" bash -c 'head -n 1 p.txt | grep -qxF "<|im_start|>user" && grep -q "tokens; --max-tokens 512, the reference pipeline cuts at 512, Z-Image.s denoiser takes 1504" p.txt &&
    grep -qE "^ +0 +[0-9]+  \"<\|im_start\|>\"$" p.txt'
check "the text alone" bash -c '"$0" prompt -q "a cat" | cmp - <(printf "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n")' "$LW"
check "JSON" bash -c '"$0" prompt --json --max-tokens 8 "a lighthouse at dawn" >p.json 2>p.err' "$LW"
check "has everything" json p.json 'j["n_tokens"] == len(j["tokens"]) > 8 and j["truncated"] and j["n_rows"] == 8
    and "".join(t["text"] for t in j["tokens"]) == j["text"] and [t["cut"] for t in j["tokens"]].count(False) == 8
    and j["text"].endswith(j["cut_text"]) and j["model_tokens"] == 1504 and j["reference_tokens"] == 512'
check "and what is cut is said" grep -qE 'warning: the prompt has [0-9]+ tokens, 8 are kept \(--max-tokens\); cut from: ' p.err
check "by generate too" bash -c '"$0" generate -q --size 64x48 --steps 1 --max-tokens 8 -o cut.png "a lighthouse at dawn" 2>&1 | grep -q "8 are kept .*cut from: "' "$LW"
check "and how much a reduction loses" bash -c '"$0" encode -q --long-prompt interpolate --max-tokens 8 -o x.safetensors "a lighthouse at dawn" 2>&1 |
    grep -qE "tokens, reduced to 8 rows \(--long-prompt\); [0-9.]+ % of the rows. variance is lost"' "$LW"
printf '# colours\na red cat\n\na blue cat\r\n' >prompts.txt
check "prompts of a file" bash -c '"$0" prompt --json --prompts prompts.txt >ps.json && test $(wc -l <ps.json) = 2 && sed -n 2p ps.json | grep -q "\"prompt\":\"a blue cat\""' "$LW"
check "from standard input" bash -c '"$0" prompt -q --prompts - <prompts.txt | grep -c "cat<" | grep -qx 2' "$LW"
check "a picture each" draw each-%d -n 2 --prompts prompts.txt
check "four in all, prompt after prompt" bash -c 'for i in 1 2; do "$0" show each-$i.png | grep -qx "prompt            a red cat" || exit 1; done
    for i in 3 4; do "$0" show each-$i.png | grep -qx "prompt            a blue cat" || exit 1; done; "$0" show each-4.png | grep -qx "seed              43"' "$LW"
check "the last one alone" "$LW" generate -q --size 64x48 --steps 2 --seed 43 -o alone.png "a blue cat"
check "is the same" same_bytes alone.png each-4.png
check "a conversation" bash -c '"$0" prompt -q --messages talk.json | grep -qxF "Here.<|im_end|>"' "$LW"
check "with another last turn" bash -c '"$0" prompt -q --messages talk.json "a bird" | grep -c "^a cat\|^a bird" | grep -qx 2' "$LW"
check "quotes are stripped" bash -c '"$0" prompt -q --strip-quotes --system "\"S\"" "a \"cat\"" | grep -c "^S<\|^a cat<" | grep -qx 2' "$LW"
check "white space is cleaned" bash -c '"$0" prompt --json --clean "$(printf " \ta \t cat\n\n\n\nb ")" >c.json' "$LW"
check "as documented" json c.json 'j["prompt"] == "a cat\n\nb"'
check "the manifest has the cleaned text" draw clean --strip-quotes --clean ' a  "cat" '
check "so it is the plain picture" same_bytes clean.png plain.png

# Errors, named.
fails "layers that are none" 2 'layers: "x" is not a list' "$LW" generate --layers x y
fails "a layer the model has not" 2 'layer_blend 99' "$LW" generate --layers 99 x
fails "layer and layers" 2 'exclude each other' "$LW" generate --layer 1 --layers 2 x
fails "a bracket without a weight" 2 'character 3 of the prompt' "$LW" prompt --weighting 'a (cat'
fails "no JSON" 2 'prompts.txt:1: not JSON' "$LW" prompt --messages prompts.txt
echo '[{"role": "user", "content": "x"}, {"role": "bot", "content": "x"}]' >bad.json
fails "a role that is none" 2 'messages\[1\]: the role is "bot"' "$LW" prompt --messages bad.json x
fails "a conversation that ends elsewhere" 2 'bad.json: the last message is not one of the user' "$LW" prompt --messages bad.json
fails "no such file" 7 'none.json' "$LW" prompt --messages none.json
echo '# nothing' >empty.txt
fails "a file without prompts" 2 'empty.txt has no prompt' "$LW" prompt --prompts empty.txt
fails "prompts and a prompt" 2 'exclude each other' "$LW" generate --prompts prompts.txt x
fails "raw and a conversation" 2 'exclude each other' "$LW" prompt --raw --messages talk.json
fails "a seed for no noise" 2 'noise-seed has no effect' "$LW" generate --noise-seed 1 x
fails "no prompt" 2 'one prompt' "$LW" prompt
stop_cluster

# Without a hub the verb starts an encoder of its own.
unset LATENTWIRE_HUB
check "prompt with a private encoder" bash -c '"$0" prompt -q --model "$1" "a cat" | grep -qx "a cat<|im_end|>"' "$LW" "$MODEL"
check "nothing is left" none_left
done_testing
