# Sourced by the integration tests: real processes with a tiny model, in a private folder that goes
# when the test ends. Results are printed as TAP, one line a case.
# shellcheck shell=bash
set -uo pipefail
set -m # background jobs get process groups of their own, and Ctrl-C is not ignored in them

: "${LW_BUILD_ROOT:?}" "${LW_TEST_DATA:?}"
LW=$LW_BUILD_ROOT/orchestrate/latentwire
PNGTOOL=$LW_BUILD_ROOT/tests/integration/pngtool
MKMODEL=$LW_BUILD_ROOT/tests/tools/latentwire-mkmodel
SPEC=$LW_TEST_DATA/spec/pipeline_tiny
MODEL=$SPEC/model

# Short: a socket's path has at most 107 bytes. Its name also marks every process of this test.
T=$(mktemp -d /tmp/lwt-XXXXXX)
export LATENTWIRE_RUNTIME_DIR=$T/run
unset LATENTWIRE_MODEL LATENTWIRE_HUB LATENTWIRE_KEYS
mkdir -m 700 "$LATENTWIRE_RUNTIME_DIR"
cd "$T" || exit 1

n_cases=0

# Processes of this test: all carry the folder's name in their arguments (so grep must not).
ours() {
    grep -laFf <(printf '%s/' "$T") /proc/[0-9]*/cmdline 2>/dev/null | cut -d / -f 3
    return 0
}

cleanup() {
    local pid
    for pid in $(ours); do
        kill -KILL "$pid" 2>/dev/null
    done
    cd / && rm -rf "$T"
}
trap cleanup EXIT
# meson ends a test that takes too long with SIGTERM.
trap 'exit 1' TERM INT HUP

ok() {
    n_cases=$((n_cases + 1))
    echo "ok $n_cases - $1"
}

not_ok() {
    n_cases=$((n_cases + 1))
    echo "not ok $n_cases - $1"
}

skip() {
    n_cases=$((n_cases + 1))
    echo "ok $n_cases - $1 # SKIP $2"
}

# check NAME COMMAND...: a case that holds when the command succeeds. What it says is shown when it
# does not.
check() {
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then
        ok "$name"
    else
        not_ok "$name"
        echo "# failed: $*"
        echo "$out" | sed 's/^/# /'
    fi
}

# fails NAME CODE PATTERN COMMAND...: the command exits with CODE and its standard error matches.
fails() {
    local name=$1 code=$2 pattern=$3 rc=0
    shift 3
    "$@" >"$T/out" 2>"$T/err" </dev/null || rc=$?
    if [ "$rc" -eq "$code" ] && grep -qE -- "$pattern" "$T/err"; then
        ok "$name"
    else
        not_ok "$name"
        echo "# exit code $rc, expected $code; standard error, expected to match /$pattern/:"
        sed 's/^/# /' "$T/err"
    fi
}

# The plan comes last, so a test that stops early is a failure.
done_testing() {
    echo "1..$n_cases"
    exit 0
}

same_bytes() {
    cmp "$1" "$2"
}

same_pixels() {
    "$PNGTOOL" diff "$1" "$2" "${3:-0}"
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local tries=$(($1 * 20))
    shift
    while ! "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.05
    done
}

none_left() {
    wait_for "${1:-3}" no_process || {
        for pid in $(ours); do
            tr '\0' ' ' <"/proc/$pid/cmdline"
            echo
        done
        return 1
    }
}

no_process() {
    [ -z "$(ours)" ]
}

no_private_dir() {
    ! ls -d "$LATENTWIRE_RUNTIME_DIR"/private-* 2>/dev/null
}

# generate NAME OPTION...: a picture with the tiny model, small and fast; NAME.png.
generate() {
    local name=$1
    shift
    "$LW" generate --model "$MODEL" --size 64x48 --steps 4 --seed 42 -o "$T/$name.png" "$@" \
        "a red circle on a blue background"
}

# free_port: a TCP port of 127.0.0.1 that nobody uses now.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start_cluster FRONTEND BACKEND "HUB AND CLIENT OPTIONS" [N_DIT]: a hub and workers as a user would
# start them, each with a log in $T. With CURVE keys, every worker uses the key of its role.
start_cluster() {
    local frontend=$1 backend=$2 options=$3 n_dit=${4:-1} i key=()
    # shellcheck disable=SC2086
    "$LW" hub --frontend="$frontend" --backend="$backend" $options >"$T/hub.log" 2>&1 &
    HUB_PID=$!
    key_of() {
        key=()
        [[ $options == *--keys* ]] && key=(--key-name "$1")
        return 0
    }
    key_of encoder
    # shellcheck disable=SC2086
    "$LW_BUILD_ROOT/encoder-svc/encoder-svc" --model "$MODEL" --hub "$backend" $options "${key[@]}" \
        --name "encoder-$T/" >"$T/encoder.log" 2>&1 &
    ENCODER_PID=$!
    key_of decoder
    # shellcheck disable=SC2086
    "$LW_BUILD_ROOT/vae-svc/vae-svc" --model "$MODEL" --hub "$backend" $options "${key[@]}" \
        --name "vae-$T/" >"$T/vae.log" 2>&1 &
    VAE_PID=$!
    key_of denoiser
    DIT_PIDS=()
    for ((i = 1; i <= n_dit; i++)); do
        # shellcheck disable=SC2086
        "$LW_BUILD_ROOT/dit-svc/dit-svc" --model "$MODEL" --hub "$backend" $options "${key[@]}" \
            --name "dit-$i-$T/" >"$T/dit-$i.log" 2>&1 &
        DIT_PIDS+=($!)
    done
}

stop_cluster() {
    kill "$HUB_PID" "$ENCODER_PID" "$VAE_PID" "${DIT_PIDS[@]}" 2>/dev/null
    wait "$HUB_PID" "$ENCODER_PID" "$VAE_PID" "${DIT_PIDS[@]}" 2>/dev/null
    return 0
}

# remote NAME OPTION...: the picture of `generate`, by the hub named in the options.
remote() {
    local name=$1
    shift
    "$LW" generate --size 64x48 --steps 4 --seed 42 -o "$T/$name.png" "$@" \
        "a red circle on a blue background"
}
