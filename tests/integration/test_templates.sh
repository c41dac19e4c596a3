#!/bin/bash
# Templates as a user meets them: the verb, and pictures made with one.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
: "${LW_SOURCE_ROOT:?}"

check "help names templates" bash -c "'$LW' help | grep -q '^  templates '"
check "templates --help" bash -c "'$LW' templates --help | grep -q '^Usage: latentwire templates list'"
fails "an action is needed" 2 'list, show, render, check or new' "$LW" templates
fails "a wrong action" 2 'list, show, render, check or new' "$LW" templates paint

# The project's own.
check "all are sound" "$LW" templates check "$LW_SOURCE_ROOT/templates/z_image"
check "which are found without being named" bash -c "'$LW' templates check | grep -qE '^[0-9]{3} templates, no problems$'"
check "a file among them" "$LW" templates check "$LW_SOURCE_ROOT/templates/z_image/experimental/album-doom-metal.md"
check "list" bash -c "'$LW' templates list | grep -qE '^storybook +art +A picture'"
check "list by category" bash -c "'$LW' templates list --category art | awk 'NR > 1 && \$2 != \"art\"' | cmp - /dev/null"
check "list by tag, a parent's too" bash -c "'$LW' templates list --tag music | grep -q '^album-doom-metal '"
check "list as JSON" bash -c "'$LW' templates list --json | python3 -c '
import json, sys
all = {t[\"name\"]: t for t in json.load(sys.stdin)}
assert len(all) >= 100
assert all[\"album-doom-metal\"][\"extends\"] == \"album-cover-base\" and \"music\" in all[\"album-doom-metal\"][\"tags\"]
assert \"lettering\" in all[\"album-cover-base\"][\"variables\"]'"
fails "an empty list" 7 'no such template' "$LW" templates list --category nowhere
fails "a name that is not there" 7 '"storyboo".*storybook' "$LW" templates show storyboo
check "show" bash -c "'$LW' templates show storybook | grep -qx 'extends: gouache'"
check "render" bash -c "'$LW' templates render storybook >own && '$LW' templates render gouache >parent && head -c 200 parent | cmp - <(head -c 200 own)"
check "render with a value" bash -c "'$LW' templates render album-cover-base --var lettering=NONE | grep -q 'Lettering: NONE'"
fails "an unknown variable" 2 'no variable "letters"; it has lettering' "$LW" templates render album-cover-base --var letters=x

# Own files.
export LATENTWIRE_TEMPLATES=$T/own-templates
mkdir -p own-templates
check "new" bash -c "test \"\$('$LW' templates new first --category art)\" = '$T/own-templates/z_image/art/first.md'"
check "what it begins with is sound" bash -c "'$LW' templates check | grep -qx '1 template, no problems'"
fails "it is not made twice" 8 'the template "first" exists' "$LW" templates new first --category style
fails "a name is only a name" 2 'lower-case words' "$LW" templates new ../evil --category art
fails "a category is only a name" 2 'lower-case words' "$LW" templates new evil --category ..
cat >own-templates/z_image/art/second.md <<'MD'
---
name: second
description: For a test.
model: z-image
category: art
tags: [test]
extends: first
size: 512x500
variables:
  mood: calm
---

Sadly {{moood}}.
MD
cat >own-templates/z_image/art/third.md <<'MD'
---
name: third
description: *x
---
MD
fails "check finds what is wrong" 4 '4 problems in 2 of 3 templates' "$LW" templates check
check "and where" diff out - <<END
$T/own-templates/z_image/art/second.md:8: size: "512x500" is not WIDTHxHEIGHT in multiples of 16, such as 1024x768
$T/own-templates/z_image/art/second.md:10: the variable "mood" is used nowhere
$T/own-templates/z_image/art/second.md:13: {{moood}} in the body is declared by no \`variables\`
$T/own-templates/z_image/art/third.md:3: YAML aliases (a plain text that begins with * & or !) are not taken; quote the text
END
fails "check of one file" 4 '^latentwire: error: 1 problem in 1 of 1 template$' "$LW" templates check own-templates/z_image/art/third.md
fails "check as JSON" 4 '4 problems' "$LW" templates check --json
check "is one object" python3 -c '
import json
d = json.load(open("out"))
assert d["checked"] == 3 and [p["line"] for p in d["problems"]] == [8, 10, 13, 3], d'
fails "check of nothing" 7 'no templates' "$LW" templates check "$LATENTWIRE_RUNTIME_DIR"
fails "a damaged one cannot be used" 4 'third.md:3: YAML aliases' "$LW" generate --template third x
rm own-templates/z_image/art/second.md own-templates/z_image/art/third.md

# Pictures. What the template says is the same as saying it.
cat >own-templates/z_image/art/red.md <<'MD'
---
name: red
description: For a test.
model: z-image
category: art
tags: [test]
thinking: I think of {{colour}}.
assistant: Here
negative: grey
add_think_block: true
size: 64x48
steps: 3
guidance: 2.5
seed: 7
variables:
  colour: red
---

Everything is {{colour}}.
MD
check "generate with a template" "$LW" generate --model "$MODEL" --template red -o t.png "a cat"
check "generate with its parts" "$LW" generate --model "$MODEL" --system "Everything is red." --thinking "I think of red." \
    --assistant Here --negative grey --think --size 64x48 --steps 3 --guidance 2.5 --seed 7 -o p.png "a cat"
check "makes the same picture" same_pixels t.png p.png
for f in t p; do "$PNGTOOL" text $f.png latentwire >$f.json; done
check "whose manifest names the template" python3 - <<'PY'
import hashlib, json
t, p = (json.load(open(f)) for f in ("t.json", "p.json"))
name, digest = t.pop("template"), t.pop("template_digest")
assert name == "red" and t == p, (t, p)
gives = {"system_prompt": p["system_prompt"], "thinking": p["thinking"], "assistant": p["assistant"],
         "negative_prompt": p["negative_prompt"], "think_block": True, "size": "64x48", "steps": 3,
         "guidance": 2.5, "seed": 7}
text = json.dumps(gives, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
assert digest == hashlib.blake2b(text, digest_size=32).hexdigest(), digest
PY
# A model that states its size is made for no other.
mkdir stated && ln -s "$MODEL"/* stated/ && rm stated/model_index.json
sed '1s/.*/{ "latentwire": { "size": [48, 32], "steps": 4 },/' "$MODEL/model_index.json" >stated/model_index.json
check "a model that states its size" "$LW" generate --model stated --template red -o own.png "a cat"
"$PNGTOOL" text own.png latentwire >own.json
check "keeps to it" python3 -c 'import json; o = json.load(open("own.json")); assert (o["width"], o["height"], o["steps"]) == (48, 32, 3), o'
check "options win" "$LW" generate --model "$MODEL" --template own-templates/z_image/art/red.md --var colour=blue \
    --thinking "" --no-think --size 48x32 --steps 2 --guidance 0 --seed 9 -o o.png "a cat"
"$PNGTOOL" text o.png latentwire >o.json
check "over all that it says" python3 - <<'PY'
import json
o = json.load(open("o.json"))
assert (o["width"], o["height"], o["steps"], o["guidance"], o["seed"]) == (48, 32, 2, 0, 9), o
assert o["system_prompt"] == "Everything is blue." and o["assistant"] == "Here", o
assert not {"thinking", "think_block", "negative_prompt"} & set(o), o
PY
check "encode takes a template" "$LW" encode --model "$MODEL" --template red -o e.safetensors "a cat"
check "the chain of stages" bash -c "'$LW' denoise --model '$MODEL' --size 64x48 --steps 3 --guidance 2.5 --seed 7 -o l.safetensors e.safetensors &&
    '$LW' decode --model '$MODEL' -o chain.png l.safetensors"
check "ends in the same file" same_bytes t.png chain.png
fails "a variable without a template" 2 'needs a --template' "$LW" generate --var a=b x
fails "a raw prompt has no template" 2 'exclude each other' "$LW" generate --raw --template red x
fails "no such template" 7 'no template is called "blue"' "$LW" generate --template blue x

check "no process left" none_left
check "no folder left" no_private_dir
done_testing
