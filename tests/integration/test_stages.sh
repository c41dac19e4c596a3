#!/bin/bash
# One stage at a time, with safetensors between, is the same as all at once; and what stands in the
# files is what the documentation says.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

prompt="a red circle on a blue background"
generate whole -n 2 --guidance 3 --negative "blurry" >/dev/null

check "encode" "$LW" encode --model "$MODEL" --guidance 3 --negative blurry -o e.safetensors "$prompt"
check "denoise" "$LW" denoise --model "$MODEL" --size 64x48 --steps 4 --seed 42 --guidance 3 -n 2 \
    -o l.safetensors e.safetensors
check "decode" "$LW" decode --model "$MODEL" -o chain.png l.safetensors
check "the chain makes the same pixels, picture 1" same_pixels whole-1.png chain-1.png
check "the chain makes the same pixels, picture 2" same_pixels whole-2.png chain-2.png
check "the chain makes the same file" same_bytes whole-1.png chain-1.png

cat >"$T/header.py" <<'PY'
import json, struct, sys
f = open(sys.argv[1], "rb")
h = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
meta = json.loads(h.pop("__metadata__")["latentwire"])
want = dict(a.split("=") for a in sys.argv[2:])
for name, shape in want.items():
    got = h[name]
    assert got["dtype"] in ("F32", "BF16", "F16"), got
    assert ",".join(map(str, got["shape"])) == shape or shape == "any", (name, got)
assert set(h) == set(want), sorted(h)
assert meta["prompt"].startswith("a red"), meta
print(meta)
PY
check "names in the embeddings file" python3 header.py e.safetensors prompt_embeds=any \
    negative_prompt_embeds=any
check "names in the latents file" python3 header.py l.safetensors latents=2,16,6,8

# Latents of another program: no manifest, one picture, rank 3.
python3 - <<'PY'
import json, struct
f = open("l.safetensors", "rb")
n = struct.unpack("<Q", f.read(8))[0]
h = json.loads(f.read(n))
data = f.read()
b, e = h["latents"]["data_offsets"]
one = data[b : b + (e - b) // 2]
h = {"latents": {"dtype": h["latents"]["dtype"], "shape": [16, 6, 8], "data_offsets": [0, len(one)]}}
text = json.dumps(h).encode()
open("foreign.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + one)
PY
check "latents without a manifest" "$LW" decode --model "$MODEL" -o foreign.png foreign.safetensors
check "have the same pixels" same_pixels whole-1.png foreign.png

# More pictures than one job takes: 66 different ones, in two jobs, numbered through.
python3 - <<'PY'
import array, json, struct
def write(name, values, n):
    data = array.array("f", values).tobytes()
    h = {"latents": {"dtype": "F32", "shape": [n, 16, 2, 2], "data_offsets": [0, len(data)]}}
    text = json.dumps(h).encode()
    open(name, "wb").write(struct.pack("<Q", len(text)) + text + data)
values = [((i * 7919) % 2001 - 1000) / 500 for i in range(66 * 64)]
write("many.safetensors", values, 66)
write("one.safetensors", values[64 * 64 : 65 * 64], 1)
PY
check "decode 66 latents" bash -c \
    "test \$('$LW' decode --model '$MODEL' -o 'many-%03d.png' many.safetensors | wc -l) -eq 66"
check "the 65th" "$LW" decode --model "$MODEL" -o one.png one.safetensors
check "is the same alone" same_pixels many-065.png one.png

# There and back.
"$PNGTOOL" make gradient.png 64x48
check "encode-image" "$LW" encode-image --model "$MODEL" -o img.safetensors gradient.png
check "decode what was encoded" "$LW" decode --model "$MODEL" -o back.png img.safetensors
check "has the size of the picture" "$PNGTOOL" diff gradient.png back.png 255
"$PNGTOOL" make odd.png 60x48
fails "a picture of a wrong size" 3 'odd.png is 60x48; .*multiples of 16' \
    "$LW" encode-image --model "$MODEL" -o x.safetensors odd.png

# Wrong files are refused by name, before a model is loaded.
fails "embeddings given to decode" 7 'e.safetensors: latents: expected .* found no tensor' \
    "$LW" decode --model "$MODEL" -o x.png e.safetensors
fails "latents given to denoise" 7 'l.safetensors: prompt_embeds: expected' \
    "$LW" denoise --model "$MODEL" -o x.safetensors l.safetensors
"$LW" encode --model "$MODEL" -o p.safetensors "$prompt" >/dev/null
fails "guidance without negative embeddings" 8 'needs negative embeddings' \
    "$LW" denoise --model "$MODEL" --guidance 2 -o x.safetensors p.safetensors
head -c 1000 l.safetensors >cut.safetensors
fails "a truncated file" 4 'cut.safetensors' "$LW" decode --model "$MODEL" -o x.png cut.safetensors
fails "no such file" 7 'nothing.safetensors' "$LW" decode --model "$MODEL" -o x.png nothing.safetensors

check "no process left" none_left
check "no folder left" no_private_dir
done_testing
