#!/bin/sh
# Cargo starts every program of this workspace through this (.cargo/config.toml). A test program that runs longer than its limit
# is ended, and the ends of its logs are shown first. What a test waits for has a deadline of its own; this is for what was
# overlooked, so that no run hangs.
case "$1" in
*/deps/*) ;;
*) exec "$@" ;;
esac

limit=${OUTRIDER_TEST_LIMIT:-1800} # seconds; the longest suite takes 6 minutes on two idle cores

watch() {
    left=$limit
    while [ "$left" -gt 0 ]; do
        sleep 1
        kill -0 "$1" 2>/dev/null || return
        left=$((left - 1))
    done
    echo "$2 did not end within $limit s (OUTRIDER_TEST_LIMIT); the ends of its logs:"
    # Test directories have the number of their process in their names.
    find "${TMPDIR:-/tmp}"/outrider-"$1"-* "${TMPDIR:-/tmp}"/pg"$1"-* \( -name '*.log' -o -name log \) -type f 2>/dev/null |
        while read -r log; do
            echo "== $log"
            tail -n 20 "$log"
        done
    echo "== $2 is ended"
    kill -TERM "$1"
    sleep 2
    kill -KILL "$1"
}

watch $$ "$1" >&2 2>/dev/null &
exec "$@"
