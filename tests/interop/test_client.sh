#!/bin/bash
# The Python client with the real services: what it gets is what the command line gets.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../integration/lib.sh"
client=$here/../../orchestrate/python/latentwire_client.py
prompt="a red circle on a blue background"
request='{"width": 64, "height": 48, "steps": 4, "seed": 42}'

python_client() {
    uv run --quiet --script "$client" --hub "$frontend" "$@"
}

"$here/uv.sh" "$client" --help >"$T/probe" 2>&1
rc=$?
if [ "$rc" -eq 77 ]; then
    echo "1..0 # SKIP $(head -n 1 "$T/probe")"
    exit 0
fi

check "the client starts" test "$rc" -eq 0
check "it has at most 100 lines" test "$(wc -l <"$client")" -le 100

frontend=ipc://$T/run/f.sock
start_cluster "$frontend" "ipc://$T/run/b.sock" ""
check "the command line makes a picture" remote cli --hub "$frontend"
check "Python makes a picture" python_client "$prompt" --request "$request" -o py.png
check "it is the same" same_pixels cli.png py.png

check "Python asks for embeddings" python_client "$prompt" --to prompt_embeds -o e.safetensors
check "the command line denoises them" "$LW" denoise --hub "$frontend" --size 64x48 --steps 4 \
    --seed 42 -o l.safetensors e.safetensors
check "Python decodes the latents" python_client --latents l.safetensors -o decoded.png
check "the picture is the same" same_pixels cli.png decoded.png

check "Python asks for latents" python_client "$prompt" --request "$request" --to latents \
    -o l2.safetensors
check "the command line decodes them" "$LW" decode --hub "$frontend" -o chain.png l2.safetensors
check "the picture is the same again" same_pixels cli.png chain.png

fails "an error is shown" 1 'invalid_argument: width is 63' python_client "$prompt" \
    --request '{"width": 63}' -o no.png
stop_cluster

check "keys are made" "$LW" keys init "$T/keys"
frontend=tcp://127.0.0.1:$(free_port)
start_cluster "$frontend" "tcp://127.0.0.1:$(free_port)" "--keys $T/keys"
check "Python makes a picture over tcp with keys" python_client "$prompt" --keys "$T/keys" \
    --request "$request" -o curve.png
check "it is the same, too" same_pixels cli.png curve.png
fails "without a key it is refused" 1 'no hub at' python_client "$prompt" -o no.png
stop_cluster
done_testing
