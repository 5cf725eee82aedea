#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The tests and benches that need a GPU, in one command, on a machine that has one.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: tests/gpu.sh [options]

Runs the conformance tests on the GPU, compares the hash of every kernel's output with that of the
host run, runs compute-sanitizer over them, and measures. The results go to build/gpu/ (or --out).

  --bundle FILE  build here, run nothing, and pack all that it needs into FILE (a .tar.gz), for a
                 machine without compilers and package mirrors: unpack there, run tests/gpu.sh
  --out DIR      where results go (default: build/gpu)
  --jobs N       processes of the build (default: the number of processors)
  --help
TEXT
}

bundle="" out=build/gpu jobs=$(nproc)
while (($#)); do
  case $1 in
    --bundle | --out | --jobs)
      (($# > 1)) || { echo "$1 needs a value" >&2; exit 2; }
      case $1 in
        --bundle) bundle=$(cd "$caller" && realpath -m "$2") ;;
        --out) out=$(cd "$caller" && realpath -m "$2") ;;
        --jobs) jobs=$2 ;;
      esac
      shift ;;
    --help | -h) usage; exit ;;
    *) echo "unknown option: $1 (see --help)" >&2; exit 2 ;;
  esac
  shift
done

tests=(gpu_conformance_test gpu_large_test)
files=build/gpu/bin

# The inputs and some trajectories of the peers, for a machine that has no golden data.
golden() {
  local from=${NIBBLE_GOLDEN_DIR:-../shared/golden} file
  mkdir -p $files/golden
  for file in opt_inputs torch_adamw_default bnb_adamw8bit_default bnb_lion8bit \
    ao_adamw4bit_default ao_adamwfp8_default hf_adafactor; do
    [[ ! -f $from/$file.safetensors ]] || cp "$from/$file.safetensors" $files/golden
  done
}

build() {
  local build=build/gpu/tree${1:+-of-bundle}
  mkdir -p build/gpu
  # A bundle must be small and run on any GPU: those not named take the code for Turing, translated
  # when it is loaded.
  local architectures=${1:-}
  cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DNIBBLE_CUDA=ON -DNIBBLE_BUILD_TRAIN=OFF \
    ${architectures:+-DNIBBLE_CUDA_ARCHITECTURES="$architectures"} -DNIBBLE_BUILD_BENCH=ON >build/gpu/configure.log || { cat build/gpu/configure.log; exit 1; }
  cmake --build $build -j "$jobs" --target "${tests[@]}" gpu_hashes cuda_bench host_hashes
  rm -rf $files
  mkdir -p $files/lib
  cp "${tests[@]/#/$build/tests/conformance/}" $build/tests/conformance/gpu_hashes $build/bench/cuda_bench $files
  $build/tests/conformance/host_hashes >$files/hashes.txt
  golden
  # The libraries that a bare machine may lack; the C library and the driver are its own.
  cp -L $build/src/capi/libnibble.so.0 $files/lib
  LD_LIBRARY_PATH=$files/lib ldd $files/gpu_conformance_test $files/lib/libnibble.so.0 | awk '$2 == "=>" {print $3}' |
    grep -vE '/(libc|libm|libdl|librt|libpthread|libcuda|libnibble)\.so' | sort -u | xargs -r cp -L -t $files/lib
}

run() {
  export LD_LIBRARY_PATH=$PWD/$files/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export NIBBLE_GOLDEN_DIR=${NIBBLE_GOLDEN_DIR:-$PWD/$files/golden}
  mkdir -p "$out"
  local failed=0
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >"$out/gpu.txt" ||
    { echo "no NVIDIA GPU is here" >&2; return 1; }
  cat "$out/gpu.txt"
  local test
  for test in "${tests[@]}"; do
    $files/$test >"$out/$test.log" 2>&1 || failed=1
    tail -n 5 "$out/$test.log"
  done
  $files/gpu_hashes >"$out/hashes.txt" || failed=1
  if diff $files/hashes.txt "$out/hashes.txt" >"$out/hashes.diff"; then
    echo "$(wc -l <"$out/hashes.txt") outputs have the host's bits"
  else
    echo "FAILED: $(grep -c '^[<>]' "$out/hashes.diff") lines differ from the host's ($out/hashes.diff)"
    failed=1
  fi
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
      echo "compute-sanitizer $tool"
      compute-sanitizer --tool $tool --error-exitcode 9 $files/gpu_conformance_test \
        --gtest_filter='DeviceSteps.*:DeviceTensors.Acc*:DeviceTensors.Gguf*:DeviceTensors.CodesAnd*:DeviceTensors.Double*-*DriverRefuses*' \
        >"$out/$tool.log" 2>&1 || { failed=1; tail -n 20 "$out/$tool.log"; }
    done
  else
    echo "SKIPPED: compute-sanitizer is not here"
  fi
  $files/cuda_bench >"$out/bench.json" || failed=1
  cat "$out/bench.json"
  return $failed
}

# A bundle has the programs already.
if [[ ! -f CMakeLists.txt ]]; then
  run
  exit
fi
build ${bundle:+"75-virtual;80-real;90-real"}
if [[ -n $bundle ]]; then
  tar -czf "$bundle" tests/gpu.sh $files
  du -h "$bundle"
  (($(stat -c %s "$bundle") <= 60 << 20)) || { echo "it is larger than 60 MiB" >&2; exit 1; }
else
  run
fi
