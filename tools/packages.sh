# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The one list of Debian packages, and the one way to install them. Sourced by tests/run.sh and
# examples/quickstart/run.sh.

# What the library and the command are built from, and the quickstart's data (wordnet-base).
# ocl-icd-opencl-dev: the CMake package of libdnnl-dev looks for OpenCL, which that does not bring.
packages_quickstart=(
  build-essential g++ cmake ninja-build pkg-config git python3 python3-venv
  libtbb-dev libhwloc-dev libhwy-dev libdnnl-dev ocl-icd-opencl-dev libfmt-dev libxxhash-dev
  libcli11-dev nlohmann-json3-dev libyaml-cpp-dev libpcre2-dev
  wordnet-base
)
# shellcheck disable=SC2034  # tests/run.sh uses it
packages_tests=(
  "${packages_quickstart[@]}"
  libgtest-dev librapidcheck-dev libbenchmark-dev strace
  clang clang-format clang-tidy libclang-rt-14-dev
)

# A Python or git that did not come from a package is as good.
package_present() {
  case $1 in
    git | python3) command -v "$1" >/dev/null && return ;;
    python3-venv) python3 -c 'import ensurepip, venv' 2>/dev/null && return ;;
  esac
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# ensure_packages MODE PACKAGE...: installs what is missing. MODE: ask, yes (do not ask) or no
# (install nothing, say what is missing and fail).
ensure_packages() {
  local mode=$1 package missing=() as_root=()
  shift
  if ! command -v dpkg-query >/dev/null; then
    echo "This is not a Debian system: nothing is installed. What is needed, by its Debian names:"
    echo "  $*" | fold -s -w 98
    return 0
  fi
  for package in "$@"; do
    package_present "$package" || missing+=("$package")
  done
  if ((${#missing[@]} == 0)); then
    echo "All $# packages are there."
    return 0
  fi
  echo "Missing packages: ${missing[*]}"
  if [[ $mode == no ]]; then
    echo "Nothing was installed (--no-install)." >&2
    return 1
  fi
  if ((EUID != 0)); then
    command -v sudo >/dev/null || {
      echo "Installing them needs root, and there is no sudo." >&2
      return 1
    }
    as_root=(sudo)
  fi
  if [[ $mode == ask ]]; then
    local answer=""
    read -r -p "Install them with ${as_root[*]:-} apt-get? [y/N] " answer || true
    [[ $answer == [yY]* ]] || {
      echo "Nothing was installed." >&2
      return 1
    }
  fi
  "${as_root[@]}" apt-get update -qq || return 1
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
