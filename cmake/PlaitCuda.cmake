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

# CUDA sources of a layer for one set of architectures, linked into the layer's library.
# plait_cuda_sources(plait_kernels ARCHITECTURES 90a-real SOURCES a.cu b.cu)
function(plait_cuda_sources target)
  cmake_parse_arguments(ARG "" "NAME" "ARCHITECTURES;SOURCES" ${ARGN})
  add_library(${ARG_NAME} OBJECT ${ARG_SOURCES})
  set_target_properties(${ARG_NAME} PROPERTIES CUDA_ARCHITECTURES "${ARG_ARCHITECTURES}" POSITION_INDEPENDENT_CODE ON)
  target_include_directories(${ARG_NAME} PRIVATE $<TARGET_PROPERTY:${target},INCLUDE_DIRECTORIES>)
  # Registers, shared memory and spills of each kernel are in the build's log. wgmma that the assembler
  # serialises (C7510) or setmaxnreg that it ignores (C7508) would cost most of the speed: an error.
  # CMake 3.25 does not know which nvcc has C++20, so the flag is ours.
  target_compile_options(${ARG_NAME} PRIVATE -std=c++20
    "SHELL:-Xptxas -v" "SHELL:-Werror all-warnings" "SHELL:-Xcompiler -Wall,-Wextra"
    -diag-suppress=554  # a view of const data need not convert to itself
    --expt-relaxed-constexpr)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${ARG_NAME}>)
endfunction()
