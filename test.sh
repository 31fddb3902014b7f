#!/bin/sh
# Sets up .venv and runs the tests but for proofs (`-m proof`). Arguments go to pytest: `sh test.sh -m "not slow"`, `sh test.sh tests/syntax`.
set -eu
cd "$(dirname "$0")"
. scripts/venv.sh
install "[test]"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # one thread a worker
exec python -m pytest -n "${WORKERS:-2}" --dist worksteal "$@"
