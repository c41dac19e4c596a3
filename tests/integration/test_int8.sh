#!/bin/bash
# 8 bits through real processes: asked for, or converted once, they draw the same; near what f32
# draws; the same on any number of threads and instruction set; and what cannot be is refused.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DEMO=${LW_SOURCE_ROOT:?}/models/demo
draw() { # NAME OPTION...
    local name=$1
    shift
    "$LW" generate "$@" --seed 5 -o "$name.png" "a large green star below a small red circle"
}
not() {
    ! "$@"
}
says() { # FILE PATTERN: the manifest
    "$LW" show --json "$1" | tr -d ' \n' | grep -qE "$2"
}

check "convert" "$LW" convert "$DEMO" packed
check "says what it saved" grep -qE 'again: [0-9.]+ of [0-9.]+ MB' <("$LW" convert "$DEMO" again)
check "the same file twice" cmp packed/transformer/*.safetensors again/transformer/*.safetensors
half=$(stat -c %s "$DEMO"/transformer/*.safetensors)
size=$(stat -c %s packed/transformer/*.safetensors)
check "the denoiser is a third smaller" test "$size" -lt $((half * 7 / 10))

check "in f32" draw f32 --model "$DEMO"
check "in 8 bits, packed when loaded" draw now --model "$DEMO" --precision int8
check "in 8 bits, packed in the file" draw file --model packed
check "the two are equal" same_pixels now.png file.png 0
check "near f32" same_pixels f32.png file.png 60
check "but not f32" not same_pixels f32.png file.png 0
check "the manifest says int8" says file.png '"denoise":\{[^}]*"precision":"int8"'
check "of the encoder too" says file.png '"encode":\{[^}]*"precision":"int8"'
check "and f32 of the decoder" says file.png '"decode":\{[^}]*"precision":"f32"'
check "one thread" draw one --model packed --threads 1
check "the same picture" same_pixels one.png file.png 0
check "one stage alone" draw dit --model "$DEMO" --precision dit=int8
check "is the only one" says dit.png '"encode":\{[^}]*"precision":"f32"'

for isa in avx2 baseline; do
    LATENTWIRE_ISA=$isa check "with $isa at most" draw "$isa" --model packed
    check "near the picture of the best" same_pixels "$isa.png" file.png 60
done
check "the capped machine says so" says baseline.png '"denoise":\{"backend":"(ref|onednn[0-9.]*sse41)"'
check "replay" "$LW" replay --model packed file.png

fails "f32 of a converted model" 8 'packed in 8 bits.*--precision int8' \
    draw x --model packed --precision f32
fails "converted twice" 8 'encoder-svc|dit-svc' "$LW" convert packed twice
fails "onto something" 2 'packed exists' "$LW" convert "$DEMO" packed
fails "no model" 7 'nothing' "$LW" convert nothing out
fails "not a model" 2 'text_encoder/' "$LW" convert "$DEMO/vae" out
fails "another precision" 2 'int4' draw x --model "$DEMO" --precision int4
fails "an unknown instruction set" 2 'LATENTWIRE_ISA: expected' \
    env LATENTWIRE_ISA=mmx "$LW" generate --model packed "a circle"
head -c 100000 packed/transformer/diffusion_pytorch_model.safetensors >cut
mv cut packed/transformer/diffusion_pytorch_model.safetensors
fails "a converted file that lost its end" 4 'dit-svc.*diffusion_pytorch_model' draw x --model packed
check "no process left" none_left
done_testing
