#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# consume.sh WAY SOURCE PREFIX WORK LIBDIR CC CXX PARALLEL SANITIZE: builds examples/c_minimal
# against nibble in one of the ways that users have, and runs it.
set -eu
way=$1 source=$2 prefix=$3 work=$4 libdir=$5
export CC=$6 CXX=$7
parallel=$8
sanitize=$9
[ "$sanitize" = "-fsanitize=" ] && sanitize=
rm -rf "$work"
mkdir -p "$work"
cmake_build() {
  cmake -S "$1" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release \
    -DNIBBLE_PARALLEL="$parallel" -DCMAKE_C_FLAGS="$sanitize" -DCMAKE_CXX_FLAGS="$sanitize"
  cmake --build "$work/build" --target c_minimal -j2
}
case $way in
  find_package)
    cmake_build "$source/examples/c_minimal"
    "$work/build/c_minimal"
    ;;
  static)
    mkdir "$work/source"
    sed 's/nibble::nibble/nibble::static/' "$source/examples/c_minimal/CMakeLists.txt" \
      > "$work/source/CMakeLists.txt"
    cp "$source/examples/c_minimal/main.c" "$work/source"
    cmake_build "$work/source"
    "$work/build/c_minimal"
    ;;
  pkg_config)
    export PKG_CONFIG_PATH="$prefix/$libdir/pkgconfig"
    # shellcheck disable=SC2046
    $CC $sanitize "$source/examples/c_minimal/main.c" -o "$work/c_minimal" \
      $(pkg-config --define-variable=prefix="$prefix" --cflags --libs nibble)
    LD_LIBRARY_PATH="$prefix/$libdir" "$work/c_minimal"
    ;;
  add_subdirectory)
    mkdir "$work/source"
    cat > "$work/source/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C CXX)
set(NIBBLE_BUILD_TRAIN OFF)
add_subdirectory($source nibble)
add_executable(c_minimal $source/examples/c_minimal/main.c)
target_link_libraries(c_minimal PRIVATE nibble::nibble)
EOF
    cmake_build "$work/source"
    "$work/build/c_minimal"
    ;;
  *) echo "unknown way $way"; exit 2 ;;
esac
