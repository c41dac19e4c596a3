#!/bin/bash
# Ctrl-C, impatience, and kills: the job ends, the exit code says how, and nothing stays behind.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export LATENTWIRE_TEST_STEP_DELAY_MS=300

all_started() {
    local pid
    for pid in $(ours); do
        grep -qa vae-svc "/proc/$pid/cmdline" && return 0
    done
    return 1
}

# start_job [starting]: a job that takes 15 s. Its first preview says that it is denoising.
start_job() {
    rm -f x.png p.png
    "$LW" generate --model "$MODEL" --size 64x48 --steps 50 --seed 1 --preview p.png -o x.png \
        "a circle" >"$T/job.out" 2>"$T/job.err" &
    job=$!
    if [ "${1:-}" = starting ]; then
        wait_for 10 all_started
    else
        wait_for 30 test -s p.png
    fi
}

# ends NAME CODE: the job ends with it. (Only the shell that started a job can wait for it.)
ends() {
    local rc=0
    wait "$job" 2>/dev/null || rc=$?
    check "$1" test "$rc" -eq "$2"
    [ "$rc" -eq "$2" ] || sed 's/^/# /' "$T/job.err"
}

start_job
kill -INT "$job"
ends "Ctrl-C while denoising: cancelled" 11
check "says so" grep -q 'cancelled' "$T/job.err"
check "no process left after Ctrl-C" none_left 1
check "no folder left after Ctrl-C" no_private_dir
check "no picture" test ! -e x.png

start_job starting
kill -INT "$job"
ends "Ctrl-C while starting" 11
check "no process left" none_left 1
check "no folder left" no_private_dir

start_job
kill -TERM "$job"
ends "SIGTERM is the same" 11
check "no process left after SIGTERM" none_left 1

start_job
kill -INT "$job"
kill -INT "$job"
ends "Ctrl-C twice" 11
check "no process left after two" none_left 1
check "no folder left after two" no_private_dir

# A real Ctrl-C: typed at a terminal, it goes to the whole foreground process group.
cat >"$T/type_it.py" <<'PY'
import os, pty, sys
try:
    pid, fd = pty.fork()
except OSError as e:
    print("no pseudo-terminal:", e)
    sys.exit(77)
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen, typed = b"", False
while True:
    try:
        data = os.read(fd, 4096)
    except OSError:
        break
    if not data:
        break
    seen += data
    if not typed and b"denoising [" in seen and b"/50" in seen:
        os.write(fd, b"\x03")
        typed = True
status = os.waitpid(pid, 0)[1]
print(seen.decode("ascii", "replace"))
sys.exit(0 if typed and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 11 else 1)
PY
rc=0
python3 "$T/type_it.py" "$LW" generate --model "$MODEL" --size 64x48 --steps 50 --seed 1 -o x.png \
    "a circle" >"$T/type_it.out" 2>&1 || rc=$?
if [ "$rc" -eq 77 ]; then
    skip "Ctrl-C typed at a terminal" "$(tail -n 1 "$T/type_it.out")"
else
    check "Ctrl-C typed at a terminal" test "$rc" -eq 0
    [ "$rc" -eq 0 ] || sed 's/^/# /' "$T/type_it.out"
fi
check "no process left after that" none_left 1
check "no folder left after that" no_private_dir

start_job
kill -KILL "$job"
wait "$job" 2>/dev/null
check "SIGKILL of the command takes its workers along" none_left 2
# Its folder stays; the next command clears it away once it is old enough to be nobody's.
for dir in "$LATENTWIRE_RUNTIME_DIR"/private-*; do
    touch -d '2 minutes ago' "$dir"
done
LATENTWIRE_TEST_STEP_DELAY_MS=0 generate after >/dev/null
check "the next command clears the folder away" no_private_dir

# A folder that is in use is left alone, however old.
start_job
for dir in "$LATENTWIRE_RUNTIME_DIR"/private-*; do
    touch -d '2 minutes ago' "$dir"
done
check "another command meanwhile" env LATENTWIRE_TEST_STEP_DELAY_MS=0 "$LW" generate --model "$MODEL" \
    --size 32x32 --steps 1 -o other.png "a square"
check "leaves the folder in use alone" test -d "$dir"
kill -INT "$job"
ends "and its own ends" 11

# With a hub of its own, Ctrl-C cancels the job there, and the hub goes on.
start_cluster "ipc://$LATENTWIRE_RUNTIME_DIR/frontend.sock" \
    "ipc://$LATENTWIRE_RUNTIME_DIR/backend.sock" ""
wait_for 10 "$LW" status
"$LW" generate --size 64x48 --steps 200 --seed 1 -o x.png "a circle" >"$T/job.out" 2>"$T/job.err" &
job=$!
sleep 1.5
kill -INT "$job"
ends "Ctrl-C with a running hub" 11
idle() {
    "$LW" status --json | python3 -c '
import json, sys
sys.exit(any(w["state"] == "busy" for w in json.load(sys.stdin)["workers"]))'
}
check "the worker is free again" wait_for 3 idle
check "and takes the next job" remote next --steps 1

# A command that was stopped (Ctrl-Z) for longer than the hub waits goes on afterwards.
LATENTWIRE_TEST_STEP_DELAY_MS=100 "$LW" generate --size 64x48 --steps 8 --seed 1 -o stopped.png \
    "a circle" >"$T/job.out" 2>"$T/job.err" &
job=$!
sleep 0.5
kill -STOP "$job"
sleep 5
kill -CONT "$job"
ends "a command that was stopped goes on" 0

# The hub dies under a job and does not come back: an error, not a frozen bar.
"$LW" generate --size 64x48 --steps 200 --seed 1 -o x.png "a circle" >"$T/job.out" 2>"$T/job.err" &
job=$!
sleep 1.5
kill -KILL "$HUB_PID"
ends "a hub that dies is an error" 15
check "that names the hub" grep -q 'frontend.sock' "$T/job.err"
kill "$ENCODER_PID" "$VAE_PID" "${DIT_PIDS[@]}"
check "workers without a hub stop on SIGTERM" none_left 5
done_testing
