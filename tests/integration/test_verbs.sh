#!/bin/bash
# The verbs as a user meets them: help, usage errors, exit codes, --json, doctor, keys, names of
# files, where the model comes from.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Help goes to standard output and names every verb.
for verb in generate prompt encode denoise decode encode-image hub status doctor keys; do
    check "help names $verb" bash -c "'$LW' help | grep -q '^  $verb '"
    check "$verb --help" bash -c "'$LW' $verb --help | grep -q '^Usage: latentwire $verb'"
done
check "version" bash -c "'$LW' version | grep -qE '^latentwire [0-9]+\.[0-9]+\.[0-9]+$'"

# Usage errors: exit code 2, what was wrong, and no process started.
fails "no verb" 2 'verb is missing' "$LW"
fails "a wrong verb" 2 'no verb "paint"' "$LW" paint
fails "a wrong option" 2 'colour' "$LW" generate --colour red x
fails "no prompt" 2 'takes one prompt, not 0' "$LW" generate
fails "a prompt without quotes" 2 'quotes' "$LW" generate a red circle
fails "a wrong size" 2 '1008x768' "$LW" generate --size 1000x770 x
fails "a wrong number" 2 'steps' "$LW" generate --steps many x
fails "too many steps" 2 'steps' "$LW" generate --steps 300 x
fails "no steps" 2 'steps' "$LW" generate --steps 0 x
fails "a prompt with a zero byte" 2 'zero byte' \
    sh -c 'printf "a\0b" | "$0" generate --model "$1" -' "$LW" "$MODEL"
fails "a wrong seed" 2 'seed' "$LW" generate --seed -1 x
fails "a wrong stage" 2 'workers.*encoder, dit, vae' "$LW" generate --model "$MODEL" --workers clip=2 x
fails "a negative prompt without guidance" 2 'guidance' "$LW" generate --negative blurry x
fails "a JPEG" 2 'x.png' "$LW" generate -o x.jpg x
fails "no such folder" 7 'no folder nowhere' "$LW" generate -o nowhere/x.png x
fails "several pictures to standard output" 2 'one picture' "$LW" generate -n 2 -o - x
fails "a hub and a model" 2 'exclude each other' "$LW" generate --hub "ipc://$T/h" --model "$MODEL" x
fails "text that is not UTF-8" 2 'UTF-8' "$LW" generate $'caf\xe9'
fails "an empty list of stages" 2 'device' "$LW" generate --model "$MODEL" --device dit= x

# What cannot be had.
fails "no such model" 7 'no/such' "$LW" generate --model no/such x
fails "no hub there" 15 'no hub answers' "$LW" generate --hub "ipc://$LATENTWIRE_RUNTIME_DIR/none" x
fails "tcp without keys" 6 'insecure-loopback' "$LW" generate --hub tcp://127.0.0.1:1 x
fails "no status without a hub" 15 'no hub' "$LW" status
fails "a device that is not there" 13 'cuda' "$LW" generate --model "$MODEL" --size 64x48 --device cuda:0 x
fails "a picture that is too large" 9 'message' "$LW" generate --model "$MODEL" --size 16384x16384 x
cp -r "$MODEL" broken
printf 'garbage' >broken/transformer/diffusion_pytorch_model.safetensors
fails "a damaged model names the file" 4 'dit-svc.*diffusion_pytorch_model.safetensors' \
    "$LW" generate --model broken --size 64x48 x
rm -r broken/transformer
fails "a missing part names the folder" 7 'dit-svc.*broken' "$LW" generate --model broken --size 64x48 x
fails "with --json the error is an object too" 2 'seed' "$LW" generate --json --seed x x
check "which has code and exit code" python3 -c '
import json
e = json.load(open("out"))["error"]
assert e["code"] == "invalid_argument" and e["exit_code"] == 2 and "seed" in e["message"], e'

# A picture and what is said about it.
check "JSON" bash -c "'$LW' generate --model '$MODEL' --size 64x48 --steps 2 --seed 7 -n 2 --json -o j.png 'a cat' >j.json"
check "describes the run" python3 -c '
import json
j = json.load(open("j.json"))
assert [f["path"] for f in j["files"]] == ["j-1.png", "j-2.png"], j["files"]
assert [f["seed"] for f in j["files"]] == [7, 8]
assert (j["width"], j["height"], j["steps"], j["seed"]) == (64, 48, 2, 7)
assert len(j["sigmas"]) == 3 and j["sigmas"][0] == 1 and j["sigmas"][-1] == 0
assert j["n_tokens"] > 5 and j["truncated"] is False and len(j["text_digest"]) == 64
assert set(j["stages"]) == {"encode", "denoise", "decode"}
for s in j["stages"].values():
    assert s["model_id"] and len(s["weights_digest"]) == 64 and s["backend"] and s["precision"], s
assert set(j["timings_ms"]) == {"start", "encode", "denoise", "decode", "total"}
assert j["timings_ms"]["denoise"] > 0 and j["hub"] == "private"'
check "the manifest is in the picture" bash -c "'$PNGTOOL' text j-2.png latentwire >m.json"
check "with the picture's own seed" python3 -c '
import json
m = json.load(open("m.json"))
assert m["seed"] == 8 and m["prompt"] == "a cat" and m["steps"] == 2 and m["manifest"] == 1
assert not {"worker", "t_ms"} & set(m["stages"]["denoise"])'
check "and the text that other tools read" bash -c \
    "'$PNGTOOL' text j-1.png parameters | grep -q '^Steps: 2, Sampler: Euler, CFG scale: 1, Seed: 7, Size: 64x48, Model: '"
check "an independent reader accepts the file" python3 -c '
import struct, zlib
d = open("j-1.png", "rb").read()
assert d[:8] == b"\x89PNG\r\n\x1a\n"
i, kinds = 8, []
while i < len(d):
    n, kind = struct.unpack(">I4s", d[i : i + 8])
    assert struct.unpack(">I", d[i + 8 + n : i + 12 + n])[0] == zlib.crc32(d[i + 4 : i + 8 + n])
    kinds.append(kind.decode())
    i += 12 + n
assert kinds[0] == "IHDR" and kinds[-1] == "IEND" and "IDAT" in kinds, kinds'

check "standard output takes the picture" bash -c \
    "'$LW' generate --model '$MODEL' --size 64x48 --steps 2 --seed 7 -o - 'a cat' | cmp - j-1.png"
check "standard input gives the prompt" bash -c \
    "echo 'a cat' | '$LW' generate --model '$MODEL' --size 64x48 --steps 2 --seed 7 -o in.png - && cmp in.png j-1.png"
mkdir folder
check "a folder gets names after the seed" bash -c \
    "'$LW' generate --model '$MODEL' --size 64x48 --steps 2 --seed 7 -o folder 'a cat' | grep -qx folder/latentwire-7.png"
check "the same picture" same_bytes folder/latentwire-7.png j-1.png
check "the model may come from the environment" bash -c \
    "LATENTWIRE_MODEL='$MODEL' '$LW' generate --size 64x48 --steps 2 --seed 7 -o env.png 'a cat' && cmp env.png j-1.png"
check "no bar where there is no terminal" bash -c \
    "'$LW' generate --model '$MODEL' --size 64x48 --steps 2 -o bar.png 'a cat' 2>&1 >/dev/null | cmp - /dev/null"
if script -qec true /dev/null >/dev/null 2>&1; then
    check "a bar on a terminal" bash -c \
        "script -qec \"'$LW' generate --model '$MODEL' --size 64x48 --steps 2 -o bar.png 'a cat'\" /dev/null | grep -q 'denoising \[.*2/2'"
else
    skip "a bar on a terminal" "script(1) finds no terminal here"
fi
check "a preview" env LATENTWIRE_TEST_STEP_DELAY_MS=200 "$LW" generate --model "$MODEL" --size 64x48 --steps 3 --preview p.png -o x.png "a cat"
check "is a small picture" bash -c "'$PNGTOOL' diff p.png p.png 0 && test \$(stat -c %s p.png) -lt 20000"

# An experiment, small enough for ThreadSanitizer; more in test_experiment.sh.
printf 'name: few\nprompts: [a cat, a dog]\nsettings: {size: 64x48}\naxes: {steps: [1, 2]}\n' >few.yaml
check "an experiment" "$LW" experiment run -q --model "$MODEL" --workers dit=2 -o few few.yaml
check "makes its four pictures" bash -c "ls few/cells/*.png | wc -l | grep -qx 4"

# A model's own defaults.
cp -r "$MODEL" own
python3 -c '
import json
i = json.load(open("own/model_index.json"))
i["latentwire"] = {"size": [48, 32], "steps": 3}
json.dump(i, open("own/model_index.json", "w"))'
check "size and steps of the model" bash -c "'$LW' generate --model own --json -o o.png x |
    python3 -c 'import json, sys; j = json.load(sys.stdin); assert (j[\"width\"], j[\"height\"], j[\"steps\"]) == (48, 32, 3), j'"

# doctor
check "doctor is content" "$LW" doctor --model "$MODEL"
check "doctor speaks JSON" bash -c "'$LW' doctor --model '$MODEL' --json | python3 -c '
import json, sys
d = json.load(sys.stdin)
assert d[\"failed\"] == 0 and {c[\"check\"] for c in d[\"checks\"]} >= {\"runtime\", \"encoder-svc\", \"dit\", \"vae\", \"encoder\", \"hub\"}'"
fails "doctor finds a missing part" 7 'failed' "$LW" doctor --model broken
check "and says which" grep -q '^fail.*transformer' out
chmod 755 "$LATENTWIRE_RUNTIME_DIR"
fails "doctor finds an open runtime folder" 6 'failed' "$LW" doctor --model "$MODEL"
chmod 700 "$LATENTWIRE_RUNTIME_DIR"

# keys
check "keys init" bash -c "'$LW' keys init k | grep -q 'k/authorized/decoder/decoder.public'"
check "secrets are private" test "$(stat -c %a k/hub.secret)" = 600
fails "keys are not overwritten" 6 'k/hub' "$LW" keys new k hub
fails "a name is only a name" 2 'name' "$LW" keys new k ../evil
check "a key for a role" bash -c "'$LW' keys new k gpu7 --role denoiser && test -f k/authorized/denoiser/gpu7.public"

check "no process left" none_left
check "no folder left" no_private_dir
done_testing
