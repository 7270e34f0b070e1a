# What a program needs that is built on the SDK: libraries, headers, and how to find them. To run it
# needs the shared library alone, if that. packaging/CMakeLists.txt has the rest.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS ostler_worker ostler_worker_shared ostler_test_support EXPORT ostler-worker-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT libostler-worker-dev
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT libostler-worker0
    NAMELINK_COMPONENT libostler-worker-dev
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set_target_properties(ostler_worker PROPERTIES EXPORT_NAME worker)
set_target_properties(ostler_worker_shared PROPERTIES EXPORT_NAME worker_shared)
set_target_properties(ostler_test_support PROPERTIES EXPORT_NAME test_support)
install(DIRECTORY include/ test-support/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  COMPONENT libostler-worker-dev FILES_MATCHING PATTERN "*.hpp" PATTERN "*.h")

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/ostler-worker)
install(EXPORT ostler-worker-targets NAMESPACE ostler:: DESTINATION ${package_dir}
  COMPONENT libostler-worker-dev)
configure_package_config_file(cmake/ostler-worker-config.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/ostler-worker-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/ostler-worker-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/ostler-worker-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/ostler-worker-config-version.cmake DESTINATION ${package_dir}
  COMPONENT libostler-worker-dev)

# Relative to the file itself, so that the tree can be moved.
foreach(folder LIBDIR INCLUDEDIR)
  set(OSTLER_PC_${folder} ${CMAKE_INSTALL_${folder}})
  if(IS_ABSOLUTE ${OSTLER_PC_${folder}})
    file(RELATIVE_PATH OSTLER_PC_${folder} ${CMAKE_INSTALL_PREFIX} ${OSTLER_PC_${folder}})
  endif()
endforeach()
file(RELATIVE_PATH OSTLER_PC_PREFIX /prefix/${OSTLER_PC_LIBDIR}/pkgconfig /prefix)
list(JOIN ostler_asio_definitions " -D" OSTLER_PC_DEFINITIONS)
configure_file(cmake/ostler-worker.pc.in ostler-worker.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/ostler-worker.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT libostler-worker-dev)
