#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# consume.sh WAY SOURCE PREFIX WORK LIBDIR CC CXX PARALLEL SANITIZE: builds examples/c_minimal and
# examples/cpp_minimal against nibble in one of the ways that users have, and runs them.
set -eu
way=$1 source=$2 prefix=$3 work=$4 libdir=$5
export CC=$6 CXX=$7
parallel=$8
sanitize=$9
[ "$sanitize" = "-fsanitize=" ] && sanitize=
rm -rf "$work"
mkdir -p "$work"
examples="c_minimal cpp_minimal"
cmake_build() { # SOURCE BUILD TARGETS...
  from=$1 build=$2
  shift 2
  cmake -S "$from" -B "$build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release \
    -DNIBBLE_PARALLEL="$parallel" -DCMAKE_C_FLAGS="$sanitize" -DCMAKE_CXX_FLAGS="$sanitize"
  cmake --build "$build" --target "$@" -j2
  for target in "$@"; do
    "$build/$target"
  done
}
case $way in
  find_package)
    for example in $examples; do
      cmake_build "$source/examples/$example" "$work/$example" "$example"
    done
    ;;
  static)
    for example in $examples; do
      cp -r "$source/examples/$example" "$work/$example.source"
      sed 's/nibble::nibble/nibble::static/' "$source/examples/$example/CMakeLists.txt" \
        > "$work/$example.source/CMakeLists.txt"
      cmake_build "$work/$example.source" "$work/$example" "$example"
    done
    ;;
  pkg_config)
    export PKG_CONFIG_PATH="$prefix/$libdir/pkgconfig"
    flags=$(pkg-config --define-variable=prefix="$prefix" --cflags --libs nibble)
    # shellcheck disable=SC2086
    $CC $sanitize -std=c99 "$source/examples/c_minimal/main.c" -o "$work/c_minimal" $flags -lm
    # shellcheck disable=SC2086
    $CXX $sanitize -std=c++17 "$source/examples/cpp_minimal/main.cc" -o "$work/cpp_minimal" $flags
    for example in $examples; do
      LD_LIBRARY_PATH="$prefix/$libdir" "$work/$example"
    done
    ;;
  add_subdirectory)
    mkdir "$work/source"
    cat > "$work/source/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C CXX)
set(NIBBLE_BUILD_TRAIN OFF)
add_subdirectory($source nibble)
add_executable(c_minimal $source/examples/c_minimal/main.c)
target_link_libraries(c_minimal PRIVATE nibble::nibble m)
add_executable(cpp_minimal $source/examples/cpp_minimal/main.cc)
target_link_libraries(cpp_minimal PRIVATE nibble::nibble)
EOF
    # shellcheck disable=SC2086
    cmake_build "$work/source" "$work/build" $examples
    ;;
  *) echo "unknown way $way"; exit 2 ;;
esac
