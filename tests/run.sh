#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every test, from a fresh clone: installs, builds, runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/packages.sh
source tools/packages.sh
# shellcheck source=tools/venv.sh
source tools/venv.sh

usage() {
  cat <<'TEXT'
usage: tests/run.sh [options]

Installs what is missing, builds with g++ (release, then with the address and undefined-behaviour
sanitizers), gets the test model, runs every test and compares with llama.cpp and the other peers.
The CUDA kernels run on a stand-in for a GPU (the toolkit's headers come as Python packages where
there is no nvcc).

  --full         also: nvcc for the oldest, a middle and the newest GPU architecture, the stand-in's
                 five schedules, clang-tidy, thread sanitizer, clang with the fuzz targets, PEFT on
                 PyTorch (5 GB), the quickstart
  --avx2         with --full: the quickstart under a forced AVX2 too (12 minutes)
  --all-gpus     with --full: nvcc for all seven GPU architectures (10 minutes more)
  --yes          do not ask before installing packages (also: CI=true)
  --no-install   install no packages; say what is missing
  --jobs N       processes of the builds and tests (default: the number of processors)
  --help
Packages (Debian):
TEXT
  fold -s -w 96 <<<"${packages_tests[*]}" | sed 's/^/  /'
}

full="" avx2="" architectures="75-real;90-real;120" jobs=$(nproc) mode=ask
[[ ${CI:-} == true ]] && mode=yes
while (($#)); do
  case $1 in
    --full) full=1 ;;
    --avx2) avx2=1 ;;
    --all-gpus) architectures="" ;;
    --yes) mode=yes ;;
    --no-install) mode=no ;;
    --jobs)
      (($# > 1)) || { echo "--jobs needs a value" >&2; exit 2; }
      jobs=$2; shift ;;
    --help | -h) usage; exit ;;
    *) echo "unknown option: $1 (see --help)" >&2; exit 2 ;;
  esac
  shift
done

model=models/SmolLM2-135M-Instruct.Q4_1.gguf
passed=0 failed=0 skipped=0 failures=() left_out=()

section() { printf '\n== %s  [%d:%02d]\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }

finish() {
  section "Result"
  ((${#left_out[@]} == 0)) || printf 'SKIPPED: %s\n' "${left_out[@]}"
  ((${#failures[@]} == 0)) || printf 'FAILED: %s\n' "${failures[@]}"
  echo "$passed passed, $failed failed, $skipped skipped"
  ((failed == 0 && passed > 0)) && exit 0 || exit 1
}

# check NAME COMMAND...: one test; exit code 77 means skipped.
check() {
  local name=$1 code=0
  shift
  section "$name"
  "$@" || code=$?
  case $code in
    0) passed=$((passed + 1)) ;;
    77) skipped=$((skipped + 1)); left_out+=("$name"); echo "SKIPPED: $name" ;;
    *) failed=$((failed + 1)); failures+=("$name"); echo "FAILED: $name" ;;
  esac
  return 0
}

# need NAME COMMAND...: what everything after it needs; its failure ends the run.
need() {
  local name=$1
  shift
  section "$name"
  "$@" || { failed=$((failed + 1)); failures+=("$name"); finish; }
}

# Where nvcc is not installed, it comes as Python packages.
cuda_toolkit() {
  local root
  if command -v nvcc >/dev/null; then
    echo "nvcc is installed."
    return 0
  fi
  [[ $mode != no ]] || return 77
  make_venv .venv-cuda tests/cuda_host/requirements.txt || return 1
  root=$(echo "$PWD"/.venv-cuda/lib/python3*/site-packages/nvidia/cu13)
  [[ -e $root/lib64 ]] || ln -s lib "$root/lib64"
  export CUDACXX=$root/bin/nvcc CUDAToolkit_ROOT=$root
}

# Every kernel, warnings and spills being errors, and the tests for a GPU.
nvcc_builds() {
  cmake --preset release -DNIBBLE_TEST_NVCC=ON \
    ${architectures:+-DNIBBLE_CUDA_ARCHITECTURES="$architectures"} >build/release.log 2>&1 ||
    { cat build/release.log; return 1; }
  cmake --build --preset release -j "$jobs"
}

# in_schedule ORDER SEED: the conformance tests that do not go through the schedules themselves.
in_schedule() {
  NIBBLE_CUDA_HOST_ORDER=$1 NIBBLE_CUDA_HOST_SEED=$2 \
    build/release/tests/conformance/conformance_test --gtest_filter='-Conformance.*' --gtest_brief=1
}

build() {
  cmake --preset "$1" >"build/$1.log" 2>&1 || { cat "build/$1.log"; return 1; }
  cmake --build --preset "$1" -j "$jobs"
}

# The names of tests in a report of ctest that were skipped or are disabled.
not_run_in() {
  sed -n '/<testcase /{/status="\(notrun\|disabled\)"/s/.* name="\([^"]*\)".*/\1/p}' "$1" 2>/dev/null
}

# tests PRESET CTEST-OPTION...: counts every single test. The tests of a preset that did not build
# are not run.
tests() {
  local preset=$1 report=$PWD/build/$1/ctest.xml name count code=0
  shift
  section "Tests: $preset"
  rm -f "$report"
  ctest --test-dir "build/$preset" -j "$jobs" --output-on-failure --no-tests=error \
    --output-junit "$report" "$@" || code=$?
  declare -A counts=()
  for name in tests failures disabled skipped; do
    count=$(sed -n "s/^[[:space:]]*$name=\"\([0-9]*\)\".*/\1/p" "$report" 2>/dev/null | head -n 1)
    counts[$name]=${count:-0}
  done
  if ((counts[tests] == 0)); then
    counts[failures]=1 counts[tests]=1
  elif ((code != 0 && counts[failures] == 0)); then  # ctest itself broke
    counts[failures]=1
  fi
  local not_run=$((counts[disabled] + counts[skipped]))
  failed=$((failed + counts[failures]))
  skipped=$((skipped + not_run))
  passed=$((passed + counts[tests] - counts[failures] - not_run))
  while read -r name; do
    left_out+=("$name ($preset)")
  done < <(not_run_in "$report")
  ((counts[failures] == 0)) || failures+=("${counts[failures]} tests of the preset $preset")
}

# build_and_test PRESET CTEST-OPTION...
build_and_test() {
  local preset=$1 before=$failed
  check "Build: $preset" build "$preset"
  ((failed > before)) || tests "$@"
}

formatted() {
  git ls-files '*.h' '*.hpp' '*.cc' '*.c' '*.cu' '*.cuh' | xargs clang-format --dry-run -Werror
}

# A pass is remembered for as long as no source changes. clang's own configuration, since it reads
# neither g++'s precompiled headers nor its warnings.
tidy() {
  local stamp=build/tidy.passed now
  now=$(git ls-files '*.h' '*.hpp' '*.cc' '*.def' .clang-tidy '*CMakeLists.txt' | xargs sha256sum)
  if [[ -f $stamp && $(<"$stamp") == "$now" ]]; then
    echo "Nothing has changed since it passed."
    return 0
  fi
  cmake -S . -B build/tidy -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_C_COMPILER=clang \
    -DCMAKE_BUILD_TYPE=Release -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DNIBBLE_PRECOMPILE=OFF \
    -DNIBBLE_BUILD_TESTS=OFF -DNIBBLE_BUILD_BENCH=OFF >build/tidy.log 2>&1 ||
    { cat build/tidy.log; return 1; }
  git ls-files 'src/*.cc' 'cpu/*.cc' |
    xargs -P "$jobs" -n 2 clang-tidy --quiet -p build/tidy 2>/dev/null || return 1
  printf '%s\n' "$now" >"$stamp"
}

fuzz() {
  local program=$1 name seconds=30
  name=$(basename "$program")
  mkdir -p "build/clang/corpus/$name"
  # New inputs go to the first directory, the committed corpus stays as it is.
  "$program" "build/clang/corpus/$name" "tests/fuzz/corpus/${name%_fuzz}" \
    -max_total_time=$seconds -rss_limit_mb=2048 -timeout=10 -print_final_stats=0 \
    -artifact_prefix="build/clang/corpus/$name-" -verbosity=0
}

# quickstart NAME [ISA]
quickstart() {
  local force=()
  (($# == 1)) || force=(--isa "$2")
  rm -rf "build/quickstart-$1"
  examples/quickstart/run.sh --no-install --jobs "$jobs" --out "build/quickstart-$1" "${force[@]}" |
    tee "build/quickstart-$1.log" || return 1
  python3 tests/oracles/quickstart_check.py "build/quickstart-$1" "build/quickstart-$1.log" \
    "${@:2}"
}

mkdir -p build
export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp"
need "Packages" ensure_packages "$mode" "${packages_tests[@]}"
check "Format" formatted
before=$((failed + skipped))
check "CUDA toolkit" cuda_toolkit  # its headers; nvcc itself with --full
has_toolkit=$((failed + skipped == before))
need "Build: release" build release
need "Test model" python3 examples/quickstart/get_model.py
need "Python environment" make_venv .venv-light tests/oracles/requirements-light.txt
tests release

python=.venv-light/bin/python
check "Oracle: gguf and safetensors" $python tests/oracles/formats_oracle.py build/release
check "Oracle: Hugging Face tokenizers and jinja2" \
  $python tests/oracles/text_oracle.py build/release $model
check "Oracle: llama.cpp" $python tests/oracles/xllamacpp_oracle.py build/release/bin/nibble $model
check "Oracle: int8 and int4 optimizer states against fp32 states" \
  $python tests/oracles/states_oracle.py build/release/bin/nibble $model ${full:+--all}
build_and_test asan -LE 'package|heavy' -E GoldenLora

if [[ -n $full ]]; then
  if ((has_toolkit)); then
    check "Build: CUDA kernels by nvcc" nvcc_builds
    NIBBLE_ALL_SCHEDULES=1 tests release -L 'cuda_host|gpu'
    for seed in 2 3; do
      check "Conformance: random schedule $seed" in_schedule random $seed
    done
    check "Conformance: reverse schedule" in_schedule reverse 0
  fi
  check "clang-tidy" tidy
  # Not again what is long and runs on one thread.
  one_thread='GoldenLora|GoldenTraj|Import|^Rules|Gradient|SameBits.(Every|After|The|Whatever)'
  one_thread+='|AnotherFormatOrBlock|conformance.random'
  build_and_test tsan -LE 'package|heavy' -E "$one_thread"
  build_and_test clang -LE 'package|heavy|cli|cuda_host' -E "$one_thread"
  for program in build/clang/tests/fuzz/*_fuzz; do
    check "Fuzz: $(basename "$program")" fuzz "$program"
  done
  check "Quickstart" quickstart auto
  [[ -z $avx2 ]] || check "Quickstart on AVX2" quickstart avx2 avx2
  need "Python environment with PyTorch" make_venv .venv-heavy tests/oracles/requirements-heavy.txt
  check "Oracle: the PyTorch adapter" .venv-heavy/bin/python tests/oracles/torch_adapter_oracle.py \
    build/release/src/capi/libnibble.so
  check "Oracle: PEFT" .venv-heavy/bin/python tests/oracles/peft_oracle.py \
    build/release/bin/nibble $model --trained build/quickstart-auto
fi
finish
