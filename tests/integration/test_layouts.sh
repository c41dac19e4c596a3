#!/bin/bash
# The same weights as a Hugging Face folder and as ComfyUI's single files make the same picture; and
# what does not fit together is refused.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

"$MKMODEL" tiny hf >/dev/null && "$MKMODEL" tiny comfy --layout comfy >/dev/null
find comfy -name '*.safetensors' | sort >files
encoder=$(grep -i 'qwen' files) dit=$(grep -i 'z_image' files) vae=$(grep 'ae.safetensors' files)
small=(--size 64x48 --steps 2 --seed 3)

check "a Hugging Face folder" "$LW" generate --model hf "${small[@]}" -o hf.png "a red circle"
check "ComfyUI files" "$LW" generate --encoder "$encoder" --dit "$dit" --vae "$vae" "${small[@]}" \
    -o comfy.png "a red circle"
check "a folder with one part from a file" "$LW" generate --model hf --vae "$vae" "${small[@]}" \
    -o mixed.png "a red circle"
# The single files are bf16, the folder's transformer f32: near, not equal.
check "draw alike" same_pixels hf.png comfy.png 3
check "doctor knows single files" "$LW" doctor --encoder "$encoder" --dit "$dit" --vae "$vae"

# Stages that do not fit: an encoder of 48 with a denoiser of 64.
fails "stages that do not fit" 8 '48.*64|64.*48' \
    "$LW" generate --model "$MODEL" --dit hf "${small[@]}" -o x.png "a red circle"
fails "a picture decoder as denoiser" 4 'dit-svc' \
    "$LW" generate --model hf --dit "$vae" "${small[@]}" -o x.png "a red circle"
check "no process left" none_left
done_testing
