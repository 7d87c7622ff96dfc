# Installs the build tree BUILD into a fresh prefix, builds the project CONSUMER against it, and runs it.
function(step what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(failed)
    message(FATAL_ERROR "${what}: ${failed}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${SCRATCH})
step("install" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${SCRATCH}/prefix)

# A sanitized library needs its consumers to link the sanitizer's runtime.
if(SANITIZE)
  set(flags -DCMAKE_CXX_FLAGS=-fsanitize=${SANITIZE})
endif()
step("configure" ${CMAKE_COMMAND} -S ${CONSUMER} -B ${SCRATCH}/build -G ${GENERATOR}
  -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_PREFIX_PATH=${SCRATCH}/prefix ${flags})
step("build" ${CMAKE_COMMAND} --build ${SCRATCH}/build)
step("run" ${MPIEXEC} --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -np 2 ${SCRATCH}/build/consumer)
foreach(rank 0 1)
  if(NOT output MATCHES "rank ${rank} of 2: 512 tokens, out\\[0\\] = 1\n")
    message(FATAL_ERROR "rank ${rank} did not report:\n${output}")
  endif()
endforeach()
