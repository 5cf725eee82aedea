# CUDA sources compiled as C++ for the test-only stand-in of the CUDA runtime (tests/cuda_host),
# which needs NVIDIA's headers but neither nvcc nor a GPU. NIBBLE_CUDA_HOST says whether it can be
# built.
find_package(CUDAToolkit QUIET)
set(NIBBLE_CUDA_INCLUDE "${CUDAToolkit_INCLUDE_DIRS}" CACHE PATH
  "Where cuda_runtime_api.h is (found by CUDAToolkit; only needed for tests of the CUDA backend)")
if(NIBBLE_CUDA_INCLUDE)
  set(NIBBLE_CUDA_HOST ON)
  if(NOT TARGET nibble_cuda_headers)
    add_library(nibble_cuda_headers INTERFACE)
    target_include_directories(nibble_cuda_headers SYSTEM INTERFACE ${NIBBLE_CUDA_INCLUDE})
  endif()
else()
  set(NIBBLE_CUDA_HOST OFF)
endif()

# nibble_add_host_cuda_library(NAME SOURCES...): a static library of .cu and .cc files, to be run on
# the stand-in. Not to be called in a directory that gives the same .cu files to nvcc, since the
# language of a source is a property of the directory.
function(nibble_add_host_cuda_library name)
  set(cuda_sources ${ARGN})
  list(FILTER cuda_sources INCLUDE REGEX "\\.cu$")
  set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CXX)  # gives -x c++
  add_library(${name} STATIC ${ARGN})
  nibble_target(${name})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)  # cuda_host/device.h
  target_link_libraries(${name} PUBLIC nibble_cuda_host)
endfunction()
