# Sourced by the scripts at the top level: makes .venv when it is absent, installs archdsl in it, puts it on PATH.
# make_venv: only the environment.
# install EXTRAS: "" for archdsl alone, "[test]" for what the tests need. PYTHON chooses the interpreter.

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
  for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if is_new_enough "$python"; then
      echo "$python"
      return
    fi
  done
  echo "archdsl needs Python 3.11 or newer; set PYTHON to one" >&2
  return 1
}

make_venv() {
  if [ ! -x .venv/bin/pip ]; then
    python=$(find_python) || exit 1
    "$python" -m venv .venv || { echo "the venv module is missing (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
  fi
  PATH=$PWD/.venv/bin:$PATH
  export PATH
}

install() {
  make_venv
  stamp=".venv/installed$1.toml" # the pyproject.toml that was installed last with these extras
  if ! cmp -s pyproject.toml "$stamp"; then
    echo "installing archdsl$1 into .venv (the first time this fetches torch and takes minutes)"
    pip install --quiet --editable ".$1" || exit 1
    python -m compileall -q archdsl stdlib # also where Python may not write its cache (PYTHONDONTWRITEBYTECODE): `check` starts twice as fast
    cp pyproject.toml "$stamp"
  fi
}
