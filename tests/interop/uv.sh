#!/bin/sh
# Run a Python script with the packages it names (PEP 723). Exit code 77, "skipped", when there is no
# uv, or when the packages cannot be had here.
set -u
command -v uv >/dev/null || { echo "skipped: uv is not installed"; exit 77; }
probe=$(mktemp -d) || exit 1
trap 'rm -rf "$probe"' EXIT
sed -n '/^# \/\/\/ script/,/^# \/\/\/$/p' "$1" >"$probe/probe.py"
if ! uv run --quiet --script "$probe/probe.py" >"$probe/log" 2>&1; then
    echo "skipped: uv cannot get the packages of $1"
    cat "$probe/log"
    exit 77
fi
uv run --quiet --script "$@"
