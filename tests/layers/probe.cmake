# Builds TARGET of the build tree BUILD. ALLOWED: it must compile. FORBIDDEN: it must not, and for the one
# reason that the compiler found no HEADER.
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BUILD} --target ${TARGET}
  RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(VERDICT STREQUAL "ALLOWED" AND failed)
  message(FATAL_ERROR "${HEADER} should compile in ${TARGET}:\n${output}")
endif()
if(VERDICT STREQUAL "FORBIDDEN")
  if(NOT failed)
    message(FATAL_ERROR "${HEADER} compiles in ${TARGET}: the layer sees more than it should")
  endif()
  # g++ says "No such file or directory", clang "file not found"; both name the header first.
  string(REPLACE "." "\\." pattern "${HEADER}")
  if(NOT output MATCHES "${pattern}(: No such file|' file not found)")
    message(FATAL_ERROR "${TARGET} failed for another reason:\n${output}")
  endif()
endif()
