# find_package(Millrace) for the build folder and for an installation, and what `cmake --install` copies.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

function(millrace_write_config folder bin lib include install_prefix)
  set(MILLRACE_PROGRAM "${bin}/millrace")
  set(MILLRACE_SDK "${lib}/libmillrace-sdk.a")
  set(MILLRACE_TESTING "${lib}/libmillrace-testing.a")
  set(MILLRACE_INCLUDE "${include}")
  configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/MillraceConfig.cmake.in"
    "${folder}/MillraceConfig.cmake"
    INSTALL_DESTINATION lib/cmake/Millrace INSTALL_PREFIX "${install_prefix}"
    PATH_VARS MILLRACE_PROGRAM MILLRACE_SDK MILLRACE_TESTING MILLRACE_INCLUDE)
  write_basic_package_version_file("${folder}/MillraceConfigVersion.cmake"
    VERSION ${PROJECT_VERSION} COMPATIBILITY ExactVersion)
endfunction()

# The build folder is laid out as an installation is.
set(package "${CMAKE_BINARY_DIR}/lib/cmake/Millrace")
millrace_write_config("${package}" "${CMAKE_BINARY_DIR}/bin" "${CMAKE_BINARY_DIR}/lib"
                      "${PROJECT_SOURCE_DIR}/core/include" "${CMAKE_BINARY_DIR}")
file(COPY "${PROJECT_SOURCE_DIR}/cmake/MillracePlugin.cmake" DESTINATION "${package}")

set(package "${CMAKE_BINARY_DIR}/install")
millrace_write_config("${package}" bin lib include "${CMAKE_INSTALL_PREFIX}")
install(FILES "${package}/MillraceConfig.cmake" "${package}/MillraceConfigVersion.cmake"
              "${PROJECT_SOURCE_DIR}/cmake/MillracePlugin.cmake"
        DESTINATION lib/cmake/Millrace COMPONENT dev)
install(TARGETS millrace-sdk millrace-testing ARCHIVE DESTINATION lib COMPONENT dev)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/core/include/millrace" DESTINATION include COMPONENT dev)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/templates" DESTINATION share/millrace COMPONENT dev)
install(FILES "${PROJECT_SOURCE_DIR}/samples/sample.pcap" DESTINATION share/millrace/samples COMPONENT host)
install(TARGETS millrace RUNTIME DESTINATION bin COMPONENT host)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/pipelines" DESTINATION share/millrace COMPONENT host)
include(MillracePackages)
