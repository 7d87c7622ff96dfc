# How every target of Plait is compiled.

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")


add_library(plait_options INTERFACE)
target_compile_features(plait_options INTERFACE cxx_std_20)
set(warnings
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor
  # GCC 12 sees overlaps where strings are joined (its bug 105651).
  -Wno-restrict)
# Not under sanitizers: their checks confuse GCC's flow analysis into warnings about the standard library.
if(PLAIT_WERROR AND NOT PLAIT_SANITIZE)
  list(APPEND warnings -Werror)
endif()
target_compile_options(plait_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${warnings}>")
if(PLAIT_SANITIZE)
  target_compile_options(plait_options INTERFACE
    -fsanitize=${PLAIT_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  target_link_options(plait_options INTERFACE -fsanitize=${PLAIT_SANITIZE})
endif()

# A layer: a static library with an include root of its own. It sees its own headers and those of the layers
# that it links, no others.
function(plait_layer target)
  string(REPLACE "plait_" "" short ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${short} CXX_EXTENSIONS OFF
    POSITION_INDEPENDENT_CODE ON)
  add_library(plait::${short} ALIAS ${target})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:plait_options>)
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endfunction()
