# shellcheck shell=bash
# Sourced by bin/demo and bin/test, from the repository's root.
#
#   prepare_environment runtime|dev
#
# creates .venv and installs the pinned, hashed packages of requirements.txt, or of requirements-dev.txt, which includes
# them. Does nothing while the lock files are unchanged. PYTHON selects another interpreter.
# On failure, prints the command that helps and returns 1.

say() { printf 'switchyard: %s\n' "$*" >&2; }

# Print the first interpreter that is new enough.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

# Print the Debian package with the venv module of the interpreter $1.
venv_package() {
  case $(readlink -f "$1") in
    "$(readlink -f /usr/bin/python3 2>/dev/null)") echo python3-venv ;;
    *) "$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])' ;;
  esac
}

can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Print a checksum of the lock files of kind $1, with the path, because a venv cannot be moved.
environment_stamp() {
  local locks=(requirements.txt)
  [ "$1" = dev ] && locks+=(requirements-dev.txt)
  printf '%s ' "$(pwd -P)"
  cat "${locks[@]}" | cksum
}

environment_is_ready() {
  [ -x .venv/bin/python ] && [ "$(cat ".venv/.$1" 2>/dev/null)" = "$(environment_stamp "$1")" ] &&
    .venv/bin/python -c '' 2>/dev/null
}

make_venv() {
  local python
  if ! python=$(find_python); then
    say "no Python 3.11 or newer was found; run: sudo apt install python3 python3-venv (or set PYTHON=/path/to/python)"
    return 1
  fi
  if ! can_make_venv "$python"; then
    say "$python has no venv module; run: sudo apt install $(venv_package "$python")"
    return 1
  fi
  rm -rf .venv && "$python" -m venv .venv
}

# Let pip install uv, which installs the rest in a fifth of pip's time. Where only pip knows of an index, pip goes on.
install_lock() {
  local lock=$1 pip=(.venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check --require-hashes -r)
  awk '/^[^ #]/ { wanted = /^uv==/ } wanted' requirements-dev.txt >var/uv.txt
  if [ -s var/uv.txt ] && { [ -x .venv/bin/uv ] || "${pip[@]}" var/uv.txt; } &&
    .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r "$lock" 2>/dev/null; then
    return 0
  fi
  [ -z "${interrupted:-}" ] || return 1
  "${pip[@]}" "$lock"
}

install_environment() {
  local kind=$1 lock=requirements.txt log=var/environment.log started=$SECONDS interrupted=
  [ "$kind" = dev ] && lock=requirements-dev.txt
  environment_is_ready "$kind" && return 0 # another process installed it while this one waited for the lock
  if ! .venv/bin/python -c 'import pip' 2>/dev/null || ! grep -qsF "$(pwd -P)/.venv" .venv/bin/activate; then
    make_venv || return 1
  fi
  printf 'switchyard: installing the pinned packages of %s into .venv ... ' "$lock" >&2
  rm -f .venv/.runtime .venv/.dev
  trap 'interrupted=1' INT
  if ! install_lock "$lock" >"$log" 2>&1; then
    if [ -n "$interrupted" ]; then
      echo 'interrupted; run this again to go on' >&2
      return 130
    fi
    echo 'failed' >&2
    tail -n 15 "$log" >&2
    say "pip could not install $lock; its output is in $log; check the network and run this again"
    return 1
  fi
  echo "done in $((SECONDS - started)) s" >&2
  environment_stamp runtime >.venv/.runtime
  if [ "$kind" = dev ]; then environment_stamp dev >.venv/.dev; fi
}

prepare_environment() {
  environment_is_ready "$1" && return 0
  mkdir -p var
  (
    if command -v flock >/dev/null && ! flock -n 9; then
      say "waiting for another process that installs into .venv"
      flock 9
    fi
    install_environment "$1"
  ) 9>var/environment.lock
}
