# Debian packages: `cpack --config build/release/CPackConfig.cmake -B build/packages`. An agent gets no libtorch,
# a machine without a database no client for one.
set(MILLRACE_GROUP_zookeeper config-zk)
set(MILLRACE_GROUP_agent sink-http)
set(MILLRACE_GROUP_server source-http split-redis queue-rabbit sink-mysql source-binlog source-canal)
set(MILLRACE_GROUP_backends sink-postgres sink-kafka model-http)
set(MILLRACE_GROUP_model model-torch)

# The component that a plugin is installed with: its group, or the host itself.
function(millrace_component_of plugin out)
  set(${out} host PARENT_SCOPE)
  foreach(group zookeeper agent server backends model)
    if(plugin IN_LIST MILLRACE_GROUP_${group})
      set(${out} ${group} PARENT_SCOPE)
    endif()
  endforeach()
endfunction()

get_property(plugins GLOBAL PROPERTY MILLRACE_PLUGINS)
set(components host dev)
foreach(plugin IN LISTS plugins)
  millrace_component_of(${plugin} component)
  list(APPEND components ${component})
  install(TARGETS ${plugin} LIBRARY DESTINATION lib/millrace/plugins COMPONENT ${component})
endforeach()
list(REMOVE_DUPLICATES components)

install(FILES "${PROJECT_SOURCE_DIR}/systemd/millrace-agent.service"
        DESTINATION lib/systemd/system COMPONENT agent)
install(FILES "${PROJECT_SOURCE_DIR}/systemd/millrace@.service"
        DESTINATION lib/systemd/system COMPONENT host)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/models" DESTINATION share/millrace COMPONENT model)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/docs/" DESTINATION share/doc/millrace COMPONENT host)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME millrace)
set(CPACK_PACKAGE_VENDOR "Millrace")
set(CPACK_PACKAGE_CONTACT "Millrace <millrace@localhost>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL ${components})
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS ON)

function(millrace_package component name depends description)
  string(TOUPPER ${component} key)
  set(CPACK_DEBIAN_${key}_PACKAGE_NAME ${name} PARENT_SCOPE)
  set(CPACK_COMPONENT_${key}_DESCRIPTION "${description}" PARENT_SCOPE)
  set(CPACK_COMPONENT_${key}_DEPENDS ${depends} PARENT_SCOPE)
endfunction()
set(CPACK_DEBIAN_MODEL_PACKAGE_DEPENDS libopenblas0-pthread) # the reference BLAS is ten times slower
millrace_package(host millrace "" "Pipeline host for classifying network sessions
 The program, the plugins that need no server, the default pipelines.")
millrace_package(zookeeper millrace-zookeeper host "Configuration of Millrace agents through ZooKeeper")
millrace_package(agent millrace-agent "host;zookeeper" "Millrace agent: capture and upload")
millrace_package(server millrace-server "host;zookeeper"
                 "Plugins for the Millrace server: HTTP, Redis, RabbitMQ, MySQL, Kafka")
millrace_package(backends millrace-backends host "Further storage and model plugins for Millrace")
millrace_package(model millrace-model-torch host "PyTorch models for Millrace, and the default model")
millrace_package(dev libmillrace-dev host "Headers and CMake files for Millrace plugins")
include(CPack)
