#!/bin/bash
# The same request gives the same PNG bytes: whatever the threads, workers, batch, transport, and
# whoever dies on the way.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

check "one worker, one thread" generate base --threads 1
generate threads --threads 2 >/dev/null
check "two threads" same_bytes base.png threads.png
generate workers --workers dit=3 >/dev/null
check "three dit workers" same_bytes base.png workers.png

# Picture i of a batch is the picture of seed + i; spread over three workers or not.
generate second --seed 43 >/dev/null
generate third --seed 44 >/dev/null
generate batch -n 3 >/dev/null
generate spread -n 3 --workers dit=3 >/dev/null
for way in batch spread; do
    check "$way, picture 1" same_bytes base.png "$way-1.png"
    check "$way, picture 2" same_bytes second.png "$way-2.png"
    check "$way, picture 3" same_bytes third.png "$way-3.png"
done

# A hub of our own: over ipc, found in the runtime folder, twice (the second from its cache); tcp;
# tcp with keys.
start_cluster "ipc://$LATENTWIRE_RUNTIME_DIR/frontend.sock" \
    "ipc://$LATENTWIRE_RUNTIME_DIR/backend.sock" ""
check "a hub is found" wait_for 10 "$LW" status
check "ipc" remote ipc
check "ipc, same bytes" same_bytes base.png ipc.png
remote cached >/dev/null
check "ipc, from the embedding cache" same_bytes base.png cached.png
LATENTWIRE_MODEL=$MODEL remote env --threads 2 --json >env.json 2>env.err
check "a model in the environment does not hide the hub" grep -q 'frontend.sock"' env.json
check "what the hub's workers cannot do is said" grep -q 'note: --threads has no effect' env.err
generate typed --json >typed.json
check "a model that is typed does" grep -q '"hub":"private"' typed.json
stop_cluster

frontend=tcp://127.0.0.1:$(free_port)
start_cluster "$frontend" "tcp://127.0.0.1:$(free_port)" --insecure-loopback
wait_for 10 "$LW" status --hub "$frontend" --insecure-loopback
check "tcp" remote tcp --hub "$frontend" --insecure-loopback
check "tcp, same bytes" same_bytes base.png tcp.png
stop_cluster

"$LW" keys init "$T/keys" >/dev/null
frontend=tcp://127.0.0.1:$(free_port)
start_cluster "$frontend" "tcp://127.0.0.1:$(free_port)" "--keys $T/keys"
wait_for 10 "$LW" status --hub "$frontend" --keys "$T/keys"
check "tcp with keys" remote curve --hub "$frontend" --keys "$T/keys"
check "tcp with keys, same bytes" same_bytes base.png curve.png
"$LW" keys new "$T/stranger" hub >/dev/null && "$LW" keys new "$T/stranger" client >/dev/null
cp "$T/keys/hub.public" "$T/stranger/hub.public"
fails "a stranger's key is refused" 5 'refused' \
    remote stranger --hub "$frontend" --keys "$T/stranger"
# An encoder's key opens the backend, not the frontend.
fails "a worker's key does not submit jobs" 5 'refused' \
    remote worker --hub "$frontend" --keys "$T/keys" --key-name encoder
stop_cluster

# The worker that has the task dies in the middle of it, by SIGKILL.
export LATENTWIRE_TEST_STEP_DELAY_MS=500
busy_dit() {
    local i
    for i in 1 2; do
        "$LW" status --json | python3 -c '
import json, sys
busy = [w["name"] for w in json.load(sys.stdin)["workers"] if w["role"] == "denoiser" and w["state"] == "busy"]
sys.exit(not any(b.startswith("dit-" + sys.argv[1]) for b in busy))' "$i" && echo "$i" && return
    done
    return 1
}
start_cluster "ipc://$LATENTWIRE_RUNTIME_DIR/frontend.sock" \
    "ipc://$LATENTWIRE_RUNTIME_DIR/backend.sock" "" 2
wait_for 10 "$LW" status
remote killed --steps 4 >"$T/killed.out" 2>&1 &
job=$!
if wait_for 10 busy_dit && sleep 0.25 && victim=$(busy_dit); then
    kill -KILL "${DIT_PIDS[$((victim - 1))]}"
    ok "a dit worker was killed while it worked"
else
    not_ok "a dit worker was killed while it worked"
fi
rc=0
wait "$job" || rc=$?
check "the job is finished by the other" test "$rc" -eq 0
check "the same bytes after a kill" same_bytes base.png killed.png
stop_cluster

# The hub itself dies and comes back: workers and client find it again, and the job is done anew.
start_cluster "ipc://$LATENTWIRE_RUNTIME_DIR/frontend.sock" \
    "ipc://$LATENTWIRE_RUNTIME_DIR/backend.sock" ""
wait_for 10 "$LW" status
remote restarted -n 2 >"$T/restarted.out" 2>&1 &
job=$!
sleep 1.2
kill -KILL "$HUB_PID"
wait "$HUB_PID" 2>/dev/null
"$LW" hub --frontend="ipc://$LATENTWIRE_RUNTIME_DIR/frontend.sock" \
    --backend="ipc://$LATENTWIRE_RUNTIME_DIR/backend.sock" >>"$T/hub.log" 2>&1 &
HUB_PID=$!
rc=0
wait "$job" || rc=$?
check "the job survives its hub" test "$rc" -eq 0
[ "$rc" -eq 0 ] || sed 's/^/# /' "$T/restarted.out"
check "the same bytes after a new hub, picture 1" same_bytes base.png restarted-1.png
check "the same bytes after a new hub, picture 2" same_bytes second.png restarted-2.png
stop_cluster

# In a private cluster the dead are replaced: kill the only denoiser.
generate reborn >"$T/reborn.out" 2>&1 &
job=$!
dit_of() {
    local pid
    for pid in $(ours); do
        grep -qa dit-svc "/proc/$pid/cmdline" && echo "$pid" && return
    done
    return 1
}
wait_for 10 test -n "$(dit_of)"
sleep 0.6
pid=$(dit_of) && kill -KILL "$pid"
rc=0
wait "$job" || rc=$?
check "a private cluster replaces its denoiser" test "$rc" -eq 0
check "and makes the same bytes" same_bytes base.png reborn.png
unset LATENTWIRE_TEST_STEP_DELAY_MS

check "no process left" none_left
check "no folder left" no_private_dir
done_testing
