# `cmake --install`: headers of all layers under one include/plait, static libraries, and plait::plait.
include(CMakePackageConfigHelpers)

foreach(layer kernels comm runtime)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${layer}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
endforeach()
install(TARGETS plait_kernels plait_comm plait_runtime EXPORT plait-targets)
install(TARGETS plait)
install(EXPORT plait-targets NAMESPACE plait:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/plait)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/plait-config.cmake.in
  ${PROJECT_BINARY_DIR}/plait-config.cmake INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/plait)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/plait-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/plait-config.cmake ${PROJECT_BINARY_DIR}/plait-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/plait)
