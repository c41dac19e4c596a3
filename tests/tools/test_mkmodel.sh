#!/bin/sh
# The full-size model has the published names, shapes, dtypes and shards: sizes of all files and MD5
# sums of configurations and indices are those of the model's manifest (docs/numerics.md). Files are
# sparse, so this takes no disk. Then: a seed gives one model, another seed another.
set -eu
mkmodel=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
    echo "FAIL: $*" >&2
    exit 1
}
check_size() {
    size=$(stat -c %s "$dir/$1")
    [ "$size" = "$2" ] || fail "$1 has $size bytes, published are $2"
}
check_md5() {
    sum=$(md5sum "$dir/$1" | cut -d ' ' -f 1)
    [ "$sum" = "$2" ] || fail "$1 has MD5 $sum, published is $2"
}

"$mkmodel" full "$dir/hf" --sparse --dtype f32 2>/dev/null
check_size hf/text_encoder/model-00001-of-00003.safetensors 3957900840
check_size hf/text_encoder/model-00002-of-00003.safetensors 3987450520
check_size hf/text_encoder/model-00003-of-00003.safetensors 99630640
check_size hf/transformer/diffusion_pytorch_model-00001-of-00003.safetensors 9973693184
check_size hf/transformer/diffusion_pytorch_model-00002-of-00003.safetensors 9973714824
check_size hf/transformer/diffusion_pytorch_model-00003-of-00003.safetensors 4672282880
check_size hf/vae/diffusion_pytorch_model.safetensors 167666902
check_md5 hf/text_encoder/config.json 1e97eb35d9d0b6aa60c58a8df8d7d99a
check_md5 hf/text_encoder/model.safetensors.index.json 589f5395156900f49d617aee8a8d8708
check_md5 hf/transformer/config.json baed87136fe5f848e24b072f99856cc3
check_md5 hf/transformer/diffusion_pytorch_model.safetensors.index.json 76d788eb0d42c59cc8f8ec007db639aa
check_md5 hf/vae/config.json ba9e2980c8630b4abccc643bc9f4a542
check_md5 hf/scheduler/scheduler_config.json ca682fcc6c5a94cf726b7187e64b9411

# The published ae.safetensors has 472 bytes more of header; its tensors are 335278732 bytes.
"$mkmodel" full "$dir/comfy" --sparse --layout comfy 2>/dev/null
check_size comfy/diffusion_models/z_image_turbo_bf16.safetensors 12309866400
check_size comfy/text_encoders/qwen_3_4b.safetensors 8044982048
header=$(od -A n -t u8 -N 8 "$dir/comfy/vae/ae.safetensors" | tr -d ' ')
check_size comfy/vae/ae.safetensors $((335278732 + 8 + header))

"$mkmodel" tiny "$dir/a" --parts vae --threads 1 2>/dev/null
"$mkmodel" tiny "$dir/b" --parts vae --threads 3 2>/dev/null
"$mkmodel" tiny "$dir/c" --parts vae --seed 2 2>/dev/null
weights=vae/diffusion_pytorch_model.safetensors
cmp -s "$dir/a/$weights" "$dir/b/$weights" || fail "the model depends on the threads"
! cmp -s "$dir/a/$weights" "$dir/c/$weights" || fail "the seed changes nothing"
! "$mkmodel" tiny "$dir/d" --parts nonsense 2>/dev/null || fail "nonsense was accepted"
echo "mkmodel: sizes, sums and seeds as expected"
