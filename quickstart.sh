#!/bin/sh
# Sets up .venv, compiles a shipped spec, runs the result and shows it.
set -eu
cd "$(dirname "$0")"
. scripts/venv.sh
install ""
exec python examples/quickstart.py
