#!/usr/bin/env bash
# Instructions per operation, of ours and of the peer: two runs under callgrind, of N and of 2N
# operations, differ by N operations and nothing else.
#
#   benches/instructions.sh [NAME] [N]      (tcp-echo, 2000; a bulk workload counts KiB)
set -euo pipefail
cd "$(dirname "$0")/.."

name=${1:-tcp-echo}
operations=${2:-2000}
command -v valgrind >/dev/null || { echo "instructions.sh needs valgrind" >&2; exit 1; }
cargo build --release --quiet -p barewire-benches --bin compare
binary=${CARGO_TARGET_DIR:-target}/release/compare
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

unit=1
case $name in bulk*) unit=1024 ;; esac

total() { # SIDE OPERATIONS
    valgrind --tool=callgrind --callgrind-out-file="$scratch/$1.$2" \
        "$binary" "$name" --side "$1" --rounds $(($2 * unit)) 2>"$scratch/log" ||
        { cat "$scratch/log" >&2; exit 1; }
    sed -n 's/^\(summary\|totals\): *//p' "$scratch/$1.$2" | tail -n 1
}

printf '%-22s %14s\n' "$name" 'instructions'
for side in ours smoltcp; do
    once=$(total "$side" "$operations")
    twice=$(total "$side" $((2 * operations)))
    printf '%-22s %14d\n' "$side" $(((twice - once) / operations))
done
