#!/bin/sh
# Sets up .venv, then checks, costs and compiles a shipped spec and runs what came out.
set -eu
cd "$(dirname "$0")"
. scripts/venv.sh
install ""

show() {
  printf '\n$ %s\n' "$*"
  "$@"
}

show archdsl check specs/vision/vit.arch
show archdsl cost specs/vision/vit.arch:tiny
show archdsl compile specs/vision/vit.arch:tiny -o build/vit-tiny
show python examples/run_compiled.py build/vit-tiny
