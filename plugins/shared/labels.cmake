# millrace_need_labels(NAME): looks for what a plugin needs that uses label_table.h. Sets NAME_LABELS to the
# sources that it takes in, NAME_LABELS_LIBRARIES and NAME_LABELS_INCLUDE, or leaves the plugin out and NAME_LABELS
# empty.
function(millrace_need_labels name)
  find_package(Boost 1.74 QUIET)
  find_path(CSV_INCLUDE csv.h)
  find_library(CSV_LIBRARY csv)
  set(${name}_LABELS "" PARENT_SCOPE)
  if(NOT Boost_FOUND OR NOT CSV_INCLUDE OR NOT CSV_LIBRARY)
    millrace_leave_out(${name} "Boost 1.74 or libcsv is not installed")
    return()
  endif()
  set(${name}_LABELS "${PROJECT_SOURCE_DIR}/plugins/shared/label_table.cpp" PARENT_SCOPE)
  set(${name}_LABELS_LIBRARIES ${CSV_LIBRARY} Boost::headers fmt::fmt PARENT_SCOPE)
  set(${name}_LABELS_INCLUDE ${CSV_INCLUDE} PARENT_SCOPE)
endfunction()
