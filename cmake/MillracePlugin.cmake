# millrace_add_plugin(NAME SOURCES ... [LIBRARIES ...] [TESTS ...] [TEST_LIBRARIES ...] [TEST_FILES ...])
#
# Builds NAME.so from SOURCES into the folder where the host looks for plugins, and TESTS (with
# SOURCES, so that a test can use the stage's classes) into the program NAME-test, run by ctest.
# TEST_FILES are what `millrace test` reads, run by ctest as NAME-pipelines.

find_package(GTest)

function(millrace_add_plugin name)
  cmake_parse_arguments(PLUGIN "" "" "SOURCES;LIBRARIES;TESTS;TEST_LIBRARIES;TEST_FILES" ${ARGN})
  add_library(${name}-objects OBJECT ${PLUGIN_SOURCES})
  target_link_libraries(${name}-objects PUBLIC millrace-sdk ${PLUGIN_LIBRARIES}
                        PRIVATE millrace_warnings)
  target_include_directories(${name}-objects PUBLIC "${CMAKE_CURRENT_SOURCE_DIR}")

  add_library(${name} MODULE)
  target_link_libraries(${name} PRIVATE ${name}-objects)
  set_target_properties(${name} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY
                        "${MILLRACE_PLUGIN_OUTPUT}")
  # Only the head is exported, whatever the libraries linked in bring.
  target_link_options(${name} PRIVATE -Wl,--exclude-libs,ALL -Wl,--no-undefined)
  set_property(GLOBAL APPEND PROPERTY MILLRACE_PLUGINS ${name})

  if(BUILD_TESTING AND PLUGIN_TESTS)
    add_executable(${name}-test ${PLUGIN_TESTS})
    target_link_libraries(${name}-test PRIVATE ${name}-objects millrace_warnings
                          ${PLUGIN_TEST_LIBRARIES} millrace-testing GTest::gmock GTest::gtest_main)
    set_target_properties(${name}-test PROPERTIES RUNTIME_OUTPUT_DIRECTORY
                          "${CMAKE_BINARY_DIR}/tests")
    millrace_compile_fast(${name}-test)
    millrace_add_test(${name} ${name}-test)
  endif()
  if(BUILD_TESTING AND PLUGIN_TEST_FILES)
    add_test(NAME ${name}-pipelines
             COMMAND millrace test ${PLUGIN_TEST_FILES} --plugins "${MILLRACE_PLUGIN_OUTPUT}"
             WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}")
    set_tests_properties(${name}-pipelines PROPERTIES TIMEOUT 900)
  endif()
endfunction()

# A plugin folder that lacks a library calls this and returns.
function(millrace_leave_out name reason)
  set_property(GLOBAL APPEND PROPERTY MILLRACE_LEFT_OUT "${name} (${reason})")
endfunction()

# millrace_need(NAME MODULE...): looks for pkg-config modules that the plugin NAME needs and sets
# NAME_NEEDS to their targets, or leaves the plugin out and NAME_NEEDS empty.
function(millrace_need name)
  find_package(PkgConfig REQUIRED)
  set(targets "")
  foreach(module IN LISTS ARGN)
    pkg_check_modules(${module} QUIET IMPORTED_TARGET GLOBAL ${module})
    if(NOT ${module}_FOUND)
      millrace_leave_out(${name} "the library ${module} is not installed")
      set(${name}_NEEDS "" PARENT_SCOPE)
      return()
    endif()
    list(APPEND targets PkgConfig::${module})
  endforeach()
  set(${name}_NEEDS ${targets} PARENT_SCOPE)
endfunction()

# Tests' own code is compiled without optimization, in half the time; what they test is optimized.
function(millrace_compile_fast target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:RelWithDebInfo>:-O0>)
endfunction()

# Runs a GoogleTest program as one ctest entry; tests skip by themselves and say why.
function(millrace_add_test name target)
  add_test(NAME ${name} COMMAND ${target} --gtest_brief=1)
  set(environment "MILLRACE_SOURCE=${PROJECT_SOURCE_DIR}")
  if(MILLRACE_SANITIZE MATCHES thread)
    list(APPEND environment "TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp")
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT 900 ENVIRONMENT "${environment}")
endfunction()

function(millrace_report_plugins)
  get_property(plugins GLOBAL PROPERTY MILLRACE_PLUGINS)
  get_property(left_out GLOBAL PROPERTY MILLRACE_LEFT_OUT)
  list(JOIN plugins " " line)
  message(STATUS "Plugins: ${line}")
  foreach(reason IN LISTS left_out)
    message(STATUS "Left out: ${reason}")
  endforeach()
endfunction()
