# Decides PLAIT_HAS_CUDA and PLAIT_HAS_NCCL, and how CUDA code is compiled.

set(PLAIT_HAS_CUDA OFF)
set(PLAIT_HAS_NCCL OFF)
if(NOT PLAIT_CUDA STREQUAL "OFF" AND NOT PLAIT_SANITIZE)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    if(CUDAToolkit_VERSION VERSION_LESS 12.8)
      message(FATAL_ERROR "The GPU kernels need CUDA 12.8 or later, found ${CUDAToolkit_VERSION}; -DPLAIT_CUDA=OFF builds without")
    endif()
    set(PLAIT_HAS_CUDA ON)
  elseif(PLAIT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "PLAIT_CUDA is ON, but no CUDA compiler was found (set CUDACXX)")
  endif()
endif()
if(PLAIT_HAS_CUDA)
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${CUDAToolkit_LIBRARY_DIR})
  if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
    set(PLAIT_HAS_NCCL ON)
  endif()
endif()
message(STATUS "Plait: CUDA ${PLAIT_HAS_CUDA}, NCCL ${PLAIT_HAS_NCCL}")

# How a target's CUDA sources are compiled, for these architectures.
function(plait_cuda_options target architectures)
  set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES "${architectures}"
    POSITION_INDEPENDENT_CODE ON)
  # CMake 3.25 does not know which nvcc has C++20, so the flag is ours. Registers, shared memory and spills of each
  # kernel are in the build's log, where tests/run.sh looks for wgmma that was serialised.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20
    "SHELL:-Xptxas -v" "SHELL:-Werror all-warnings" "SHELL:-Xcompiler -Wall,-Wextra"
    -diag-suppress=554  # a view of const data need not convert to itself
    --expt-relaxed-constexpr>)
endfunction()

# CUDA sources of a layer, compiled into the layer's library.
# plait_cuda_sources(plait_kernels NAME plait_kernels_hopper ARCHITECTURES 90a-real SOURCES a.cu b.cu)
function(plait_cuda_sources target)
  cmake_parse_arguments(ARG "" "NAME" "ARCHITECTURES;SOURCES" ${ARGN})
  add_library(${ARG_NAME} OBJECT ${ARG_SOURCES})
  plait_cuda_options(${ARG_NAME} "${ARG_ARCHITECTURES}")
  target_include_directories(${ARG_NAME} PRIVATE $<TARGET_PROPERTY:${target},INCLUDE_DIRECTORIES>)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${ARG_NAME}>)
endfunction()
