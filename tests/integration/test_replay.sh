#!/bin/bash
# Pictures made again from their files: equal whatever the threads, the hub and the way they were
# made; different when a pixel is; impossible when something is missing or has changed.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

CORPUS=$LW_SOURCE_ROOT/tests/fuzz/corpus/picture
prompt="a red circle on a blue background"

# edit.py IN OUT [--drop KEY] [--set KEY JSON] [--text TEXT] [--pixels N BY]: a copy of a picture
# with another manifest, or with N pixels whose green is changed by BY.
cat >"$T/edit.py" <<'PY'
import json, struct, sys, zlib
data = open(sys.argv[1], "rb").read()
chunks, i = [], 8
while i < len(data):
    n = struct.unpack(">I", data[i : i + 4])[0]
    chunks.append([data[i + 4 : i + 8], data[i + 8 : i + 8 + n]])
    i += 12 + n
width, height = struct.unpack(">II", chunks[0][1][:8])

def rows(packed):
    raw, above, out = zlib.decompress(packed), bytearray(3 * width), []
    for y in range(height):
        kind, row = raw[y * (3 * width + 1)], bytearray(raw[y * (3 * width + 1) + 1 : (y + 1) * (3 * width + 1)])
        for x in range(3 * width):
            a, b, c = row[x - 3] if x > 2 else 0, above[x], above[x - 3] if x > 2 else 0
            p = a + b - c
            paeth = min((abs(p - v), k, v) for k, v in enumerate((a, b, c)))[2]
            row[x] = (row[x] + (0, a, b, (a + b) // 2, paeth)[kind]) & 255
        out.append(row)
        above = row
    return out

args = sys.argv[3:]
while args:
    what = args.pop(0)
    for c in chunks:
        if what == "--pixels" and c[0] == b"IDAT":
            n, by = int(args.pop(0)), int(args.pop(0))
            picture = rows(b"".join(d for k, d in chunks if k == b"IDAT"))
            for k in range(n):
                row, at = picture[k // width], 3 * (k % width) + 1
                row[at] += by if row[at] + by < 256 else -by
            c[1] = zlib.compress(b"".join(b"\0" + r for r in picture))
        if what != "--pixels" and c[1].startswith(b"latentwire\0"):
            start = 11 if c[0] == b"tEXt" else 15
            m = json.loads(c[1][start:])
            if what == "--drop":
                del m[args.pop(0)]
            elif what == "--set":
                key = args.pop(0)
                m[key] = json.loads(args.pop(0))
            text = args.pop(0).encode() if what == "--text" else json.dumps(m).encode()
            c[:] = b"iTXt", b"latentwire\0\0\0\0\0" + text
with open(sys.argv[2], "wb") as f:
    f.write(data[:8])
    for kind, d in chunks:
        f.write(struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)))
PY
edit() { python3 "$T/edit.py" "$@"; }

# says CODE PATTERN COMMAND...: the answer on standard output; standard error is empty.
says() {
    local name=$1 code=$2 pattern=$3 rc=0
    shift 3
    "$@" >"$T/out" 2>"$T/err" </dev/null || rc=$?
    if [ "$rc" -eq "$code" ] && grep -qE -- "$pattern" "$T/out" && [ ! -s "$T/err" ]; then
        ok "$name"
    else
        not_ok "$name"
        echo "# exit code $rc, expected $code; the answer, expected to match /$pattern/:"
        sed 's/^/# /' "$T/out" "$T/err"
    fi
}

"$MKMODEL" tiny "$T/tiny" >/dev/null 2>&1
MODEL=$T/tiny
check "a picture" generate base --threads 1
check "four pictures" generate batch -n 4

# show
check "show begins with the prompt" bash -c "'$LW' show base.png | head -n 1 | grep -qx 'prompt            $prompt'"
check "show names the seed" bash -c "'$LW' show batch-3.png | grep -qx 'seed              44'"
check "show names who did what" bash -c "'$LW' show base.png | grep -qE '^denoise +tiny, weights [0-9a-f]{12}, .*, f32$'"
check "show --json is the text of the file" bash -c "cmp <('$LW' show --json base.png) <('$PNGTOOL' text base.png latentwire)"
check "with the tokens" python3 -c '
import json, subprocess, sys
m = json.loads(subprocess.check_output([sys.argv[1], "show", "--json", "base.png"]))
assert len(m["token_ids"]) == m["n_tokens"] > 5, m' "$LW"
check "show --parameters too" bash -c "cmp <('$LW' show --parameters base.png) <('$PNGTOOL' text base.png parameters)"
check "show reads standard input" bash -c "cmp <('$LW' show - <base.png) <('$LW' show base.png)"
edit base.png escapes.png --set prompt '"\u001b]0;owned\u0007 \u009b2J\nsecond"'
check "no control characters for a terminal" bash -c "! '$LW' show escapes.png | LC_ALL=C grep -qP '[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]'"
check "lines of a text stand below each other" bash -c "'$LW' show escapes.png | grep -qx '                  second'"
"$PNGTOOL" make foreign.png 64x48
fails "show of a foreign picture" 7 'foreign.png has no text "latentwire"' "$LW" show foreign.png
fails "show of nothing" 7 'none.png' "$LW" show none.png
fails "two texts at once" 2 'ask for one' "$LW" show --json --parameters base.png
for verb in show replay; do
    check "help names $verb" bash -c "'$LW' help | grep -q '^  $verb '"
    check "$verb --help" bash -c "'$LW' $verb --help | grep -q '^Usage: latentwire $verb'"
done

# equal
says "equal with two threads" 0 '^equal: base.png: 3072 pixels, and every byte of the file$' \
    "$LW" replay --model "$MODEL" --threads 2 base.png
says "one of a batch alone" 0 '^equal: batch-3.png: .* every byte' "$LW" replay --model "$MODEL" batch-3.png
check "-o writes it" "$LW" replay --model "$MODEL" -o again.png batch-4.png
check "with the same bytes" same_bytes batch-4.png again.png
check "--json" bash -c "'$LW' replay --model '$MODEL' --json - <batch-2.png | python3 -c '
import json, sys
j = json.load(sys.stdin)
assert j[\"result\"] == \"equal\" and j[\"same_bytes\"] is True and j[\"pixels\"] == 3072, j
assert j[\"pixels_differ\"] == 0 and j[\"psnr_db\"] is None and j[\"notes\"] == [], j'"
check "everything that can be asked" generate all --guidance 2.5 --negative $'blurry\nd\xc3\xa9j\xc3\xa0' --system "you paint" \
    --thinking "hm" --assistant "so" --layer -3 --max-tokens 40 --cfg-normalization 1 --cfg-truncation 0.7 --shift 2 --tile 8
says "is made again" 0 '^equal: all.png: .* every byte' "$LW" replay --model "$MODEL" all.png
"$LW" encode --model "$MODEL" --guidance 2 -o e.safetensors "$prompt" >/dev/null
"$LW" denoise --model "$MODEL" --size 48x64 --steps 3 --seed 7 --guidance 2 -n 2 -o l.safetensors e.safetensors >/dev/null
"$LW" decode --model "$MODEL" -o chain.png l.safetensors >/dev/null
says "a chain of stages too" 0 '^equal: chain-2.png: .* every byte' "$LW" replay --model "$MODEL" chain-2.png
edit base.png spaces.png --set version '"0.0.1"'
says "equal, but not its bytes" 0 '^equal: spaces.png: 3072 pixels; the bytes of the files differ$' \
    "$LW" replay --model "$MODEL" spaces.png
check "and the program's version is noted" grep -q 'latentwire 0.0.1' "$T/out"

# A hub that runs, with workers of its own.
start_cluster "ipc://$LATENTWIRE_RUNTIME_DIR/frontend.sock" "ipc://$LATENTWIRE_RUNTIME_DIR/backend.sock" ""
all_there() { [ "$("$LW" status | grep -c ' idle ')" -eq 3 ]; }
check "a hub with its three workers" wait_for 60 all_there
says "equal over a hub that runs" 0 '^equal: .* every byte' "$LW" replay batch-1.png
says "and named, from its cache" 0 '^equal: .* every byte' \
    "$LW" replay --hub "ipc://$LATENTWIRE_RUNTIME_DIR/frontend.sock" base.png
stop_cluster

# different
edit base.png tampered.png --pixels 11 5
says "a tampered picture" 18 '^different: tampered.png: by 5 of 255 at most, 11 of 3072 pixels, PSNR ' \
    "$LW" replay --model "$MODEL" -o made.png tampered.png
check "the right one is written" same_bytes base.png made.png
check "--json of a tampered picture" bash -c "'$LW' replay --model '$MODEL' --json tampered.png | python3 -c '
import json, math, sys
j = json.load(sys.stdin)
assert j[\"result\"] == \"different\" and j[\"pixels_differ\"] == 11 and j[\"largest\"] == 5, j
want = 10 * math.log10(255 ** 2 * 3072 * 3 / (11 * 25))
assert abs(j[\"psnr_db\"] - want) < 1e-6, (j, want)'"
edit base.png seed.png --set seed 43
says "another seed in the manifest" 18 '^different: seed.png' "$LW" replay --model "$MODEL" seed.png

# Other weights: a byte of the denoiser, as the hub reports it.
cp -r tiny changed
python3 - changed/transformer <<'PY'
import glob, json, struct, sys
name = sorted(glob.glob(sys.argv[1] + "/*.safetensors"))[0]
with open(name, "r+b") as f:
    n = struct.unpack("<Q", f.read(8))[0]
    h = json.loads(f.read(n))
    at = 8 + n + next(v for k, v in h.items() if k.endswith("x_embedder.2-1.weight"))["data_offsets"][0] + 1
    f.seek(at)
    byte = f.read(1)[0]
    f.seek(at)
    f.write(bytes([byte ^ 0x80]))
PY
says "a changed weight is named" 8 '^impossible: base.png: denoise: made with the weights [0-9a-f]{12} \(tiny\), here are [0-9a-f]{12} \(changed\); --force' \
    "$LW" replay --model changed base.png
check "and only that stage" bash -c "! grep -qE 'encode:|decode:' '$T/out'"
says "--force makes it anyway" 18 '^different: base.png' "$LW" replay --model changed --force base.png
check "with a note" grep -q '^  denoise: the weights was' "$T/out"
check "impossible in JSON" bash -c "'$LW' replay --model changed --json base.png | python3 -c '
import json, sys
j = json.load(sys.stdin)
assert j[\"result\"] == \"impossible\" and \"denoise\" in j[\"reason\"], j'"

# Templates: the file has the texts, so one that is gone is not missed; one that has changed is said.
mkdir templates
printf -- '---\nname: plain\ndescription: A test.\nmodel: z-image\ncategory: templates\ntags: [a]\n---\n\nPaint in blue.\n' >templates/plain.md
printf -- '---\nname: open\ndescription: A test.\nmodel: z-image\ncategory: templates\ntags: [a]\nvariables:\n  hue: blue\n---\n\nPaint in {{hue}}.\n' >templates/open.md
check "a picture with a template" generate plain --templates templates --template plain
check "one with a variable" generate open --templates templates --template open --var hue=red
says "the template is the same" 0 '^equal: plain.png: .* every byte' "$LW" replay --model "$MODEL" --templates templates plain.png
check "and there is nothing to note" bash -c "test \$(wc -l <'$T/out') -eq 1"
says "values of variables are in the file" 0 '^equal: open.png: .* every byte' "$LW" replay --model "$MODEL" --templates templates open.png
check "so there is nothing to note" bash -c "test \$(wc -l <'$T/out') -eq 1"
edit open.png novalues.png --drop variables
says "a file of an older version" 0 '^equal: novalues.png: ' "$LW" replay --model "$MODEL" --templates templates novalues.png
check "may have had other values" grep -q '^  the template "open" gives something else' "$T/out"
sed -i 's/Paint/Draw/' templates/open.md
says "a changed template with a variable is named" 8 '^impossible: open.png: the template "open" has changed' \
    "$LW" replay --model none --templates templates open.png
sed -i 's/blue/green/' templates/plain.md
says "a changed template is named" 8 '^impossible: plain.png: the template "plain" has changed' \
    "$LW" replay --model none --templates templates plain.png
says "--force takes the texts of the file" 0 '^equal: plain.png: .* every byte' \
    "$LW" replay --model "$MODEL" --templates templates --force plain.png
check "and notes it" grep -q '^  the template "plain" has changed$' "$T/out"
rm templates/plain.md
says "a template that is gone" 0 '^equal: plain.png: .* every byte' "$LW" replay --model "$MODEL" --templates templates plain.png
check "is noted" grep -q '^  the template "plain" is not here$' "$T/out"
edit plain.png path.png --set template '"../../../../etc/hostname"'
says "a path is no name of a template" 0 '^equal: path.png' "$LW" replay --model "$MODEL" --templates templates path.png
check "and is not opened" grep -q 'hostname" is not here$' "$T/out"

# impossible by the file alone: said before a model is looked for
says "a foreign picture" 8 '^impossible: foreign.png has no text' "$LW" replay --model none foreign.png
edit base.png noseed.png --drop seed
says "no seed" 8 '^impossible: noseed.png: its manifest lacks what is needed: seed$' "$LW" replay --model none noseed.png
python3 - <<'PY'
import json, struct
for name in "e", "l":
    f = open(name + ".safetensors", "rb")
    h = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    data = f.read()
    h.pop("__metadata__")
    text = json.dumps(h).encode()
    open("foreign-" + name + ".safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data)
PY
"$LW" decode --model "$MODEL" -o latents.png foreign-l.safetensors >/dev/null
says "made from given latents" 8 '^impossible: latents-1.png: made from given latents' "$LW" replay --model none latents-1.png
"$LW" denoise --model "$MODEL" --size 64x48 --steps 2 --seed 1 -o fl.safetensors foreign-e.safetensors >/dev/null
"$LW" decode --model "$MODEL" -o embeds.png fl.safetensors >/dev/null
says "made from given embeddings" 8 '^impossible: embeds.png: made from given embeddings' "$LW" replay --model none embeds.png
edit base.png later.png --set manifest 2
says "a later manifest" 8 '^impossible: .*format 2' "$LW" replay --model none later.png
edit base.png cut.png --set width 128
says "a picture that was cut" 8 '^impossible: cut.png is 64 x 48' "$LW" replay --model none cut.png

# Files that are not what they seem: refused, with little memory.
edit base.png nojson.png --text "prompt: a cat"
fails "a manifest that is not JSON" 4 'nojson.png: its manifest is not a JSON object' "$LW" replay --model none nojson.png
edit base.png wrong.png --set seed '"seven"'
fails "a value of a wrong kind" 4 '"seed" is not a whole number' "$LW" replay --model none wrong.png
edit base.png huge.png --set width 16384 --set height 16384
fails "an absurd size" 9 '16384 x 16384' "$LW" replay --model none huge.png
head -c 1000 base.png >short.png
fails "a truncated file" 4 'short.png: damaged PNG' "$LW" replay --model none short.png
fails "a folder" 4 'folder' "$LW" show "$T"
fails "not over the picture itself" 2 'is the picture that is to be checked' "$LW" replay --model "$MODEL" -o base.png base.png
fails "standard output is taken" 2 'name a file' "$LW" replay --model "$MODEL" -o - base.png
fails "no such model" 7 'none' "$LW" replay --model none base.png
(
    # A sanitizer maps terabytes of address space, so its build cannot start within the limit.
    grep -qaE '__(asan|tsan)_init' "$LW" || ulimit -v 300000
    for f in "$CORPUS"/*; do
        timeout 20 "$LW" show "$f" >show.out 2>show.err
        echo "show $? $(wc -c <show.err) ${f##*/}"
        timeout 20 "$LW" replay --model none "$f" >show.out 2>show.err </dev/null
        echo "replay $? $(cat show.out show.err | wc -c) ${f##*/}"
    done
) >hostile.txt
check "hostile files end in an error and nothing worse" awk '
    $1 == "show" && $2 != 0 && $2 != 4 && $2 != 7 && $2 != 9 { print; bad = 1 }
    $1 == "replay" && $2 != 4 && $2 != 7 && $2 != 8 && $2 != 9 { print; bad = 1 }
    $2 != 0 && $3 == 0 { print; bad = 1 }
    END { exit bad || NR < 100 }' hostile.txt
check "only what is whole asks for a model" bash -c "test \"\$(grep '^replay 7' hostile.txt | cut -d ' ' -f 4 | sort | tr '\n' ' ')\" = 'many-texts picture '"

check "no process left" none_left
check "no folder left" no_private_dir
done_testing
