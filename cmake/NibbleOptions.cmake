# Options, the compile flags that every target of ours shares, and the one helper that applies them.
option(NIBBLE_BUILD_TRAIN "Build the QLoRA trainer and the nibble command" ON)
option(NIBBLE_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(NIBBLE_BUILD_BENCH "Build the benchmarks" ${PROJECT_IS_TOP_LEVEL})
option(NIBBLE_FUZZ "Build the libFuzzer targets (clang only); without it their corpora are replayed" OFF)
option(NIBBLE_CUDA "Build the CUDA backend with nvcc" OFF)
option(NIBBLE_TEST_NVCC "Build the tests for a GPU though the library has no CUDA backend" OFF)
set(NIBBLE_CUDA_ARCHITECTURES "75-real;80-real;86-real;89-real;90-real;100-real;120" CACHE STRING
  "GPU architectures, as CMake's CUDA_ARCHITECTURES")
option(NIBBLE_WERROR "Warnings are errors (ours only; never for consumers)" OFF)
set(NIBBLE_PARALLEL "tbb" CACHE STRING "What runs parallel_for: tbb, or threads (a plain pool, for TSan)")
set_property(CACHE NIBBLE_PARALLEL PROPERTY STRINGS tbb threads)
set(NIBBLE_SANITIZE "" CACHE STRING "Sanitizers, as given to -fsanitize=")

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)

# Applied to every target of ours. -ffp-contract=off: a fused multiply-add is written where it is
# meant, so that every instruction set and device gives the same bits (src/math/README.md).
function(nibble_target target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:C,CXX>:-Wall;-Wextra;-Wpedantic;-ffp-contract=off>
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>  # g++ 12 sees overlaps in std::string that are not there
    $<$<AND:$<BOOL:${NIBBLE_WERROR}>,$<COMPILE_LANGUAGE:C,CXX>>:-Werror>)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
  if(NIBBLE_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${NIBBLE_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${NIBBLE_SANITIZE})
    if(CMAKE_CXX_COMPILER_ID MATCHES "Clang" AND NIBBLE_SANITIZE MATCHES "address")
      target_compile_definitions(${target} PRIVATE __SANITIZE_ADDRESS__)  # as g++ has it
    endif()
  endif()
  # The fuzzer sees only code that counts its edges. The sanitizers' runtime holds the counters for
  # the programs that are not fuzz targets, so without a sanitizer a fuzzer goes blind.
  if(NIBBLE_FUZZ AND NIBBLE_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
endfunction()

# Parses the heavy headers once a target instead of once a file; a file still includes what it uses.
option(NIBBLE_PRECOMPILE "Precompile heavy headers (halves the build)" ON)
function(nibble_precompile target)
  if(NIBBLE_PRECOMPILE)
    target_precompile_headers(${target} PRIVATE ${ARGN})
  endif()
endfunction()
