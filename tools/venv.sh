# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The one way to make a Python environment for the oracles.

# make_venv DIRECTORY REQUIREMENTS: an environment with exactly these requirements, made anew when
# they or the interpreter change.
make_venv() {
  local directory=$1 requirements=$2 stamp
  # The heavy list includes the light one.
  stamp=$(python3 --version && cat "$requirements" tests/oracles/requirements-light.txt)
  if [[ -f $directory/nibble-stamp && $(<"$directory/nibble-stamp") == "$stamp" ]]; then
    echo "$directory is up to date."
    return 0
  fi
  rm -rf "$directory"
  # Said explicitly, since `set -e` does not hold inside a function whose status is looked at.
  python3 -m venv "$directory" || return 1
  "$directory/bin/python" -m pip install --quiet --disable-pip-version-check \
    -r "$requirements" || return 1
  # Written last: an environment that was broken off is made anew.
  printf '%s\n' "$stamp" >"$directory/nibble-stamp"
  echo "$directory: $("$directory/bin/python" -m pip list --format=freeze 2>/dev/null | wc -l) packages"
}
