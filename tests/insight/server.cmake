triptych_test(insight_server_test
  SOURCES http_rules_test.cpp http_server_test.cpp metrics_tail_test.cpp viewer_test.cpp
  DEPENDS triptych::insight_server insight_synthetic_traces)

triptych_test(insight_command_test
  SOURCES insight_command_test.cpp ${CMAKE_SOURCE_DIR}/src/cli/insight.cpp
  DEPENDS triptych::cli triptych::insight_server insight_synthetic_traces)

# The command `triptych insight` by itself, which builds without libtorch: the page is tested with it.
add_executable(insight_viewer viewer_main.cpp ${CMAKE_SOURCE_DIR}/src/cli/insight.cpp)
target_link_libraries(insight_viewer PRIVATE triptych::cli triptych::insight_server)
_triptych_common(insight_viewer)
set_target_properties(insight_viewer PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

# The page itself needs npm and a browser, which `scripts/setup.sh --tests` installs; without them its tests are
# not there, which cmake says. They wait for states and for no time, so that they pass beside other tests.
option(TRIPTYCH_BROWSER_TESTS "Test the viewer's page in headless Chromium, where npm and Chromium are there" ON)
find_program(TRIPTYCH_NPM npm HINTS ${CMAKE_SOURCE_DIR}/.venv/bin)
find_program(TRIPTYCH_CHROMIUM chromium)
if(TRIPTYCH_NPM)
  set(web ${CMAKE_SOURCE_DIR}/web)
  cmake_path(GET TRIPTYCH_NPM PARENT_PATH node_folder)
  add_test(NAME web_install COMMAND ${TRIPTYCH_NPM} ci --no-audit --no-fund --ignore-scripts WORKING_DIRECTORY ${web})
  set_tests_properties(web_install PROPERTIES FIXTURES_SETUP web_modules LABELS web TIMEOUT 600)
  add_test(NAME web_check COMMAND ${TRIPTYCH_NPM} run check WORKING_DIRECTORY ${web})
  set_tests_properties(web_check PROPERTIES FIXTURES_REQUIRED web_modules LABELS web TIMEOUT 600)
  if(TRIPTYCH_CHROMIUM AND TRIPTYCH_BROWSER_TESTS)
    add_test(NAME web_page COMMAND ${TRIPTYCH_NPM} test WORKING_DIRECTORY ${web})
    set_tests_properties(web_page PROPERTIES FIXTURES_REQUIRED web_modules LABELS web PROCESSORS 2 TIMEOUT 2400 COST 100
      ENVIRONMENT "INSIGHT_VIEWER=$<TARGET_FILE:insight_viewer>;INSIGHT_SYNTHETIC=$<TARGET_FILE:insight_synthetic>;CHROMIUM=${TRIPTYCH_CHROMIUM};INSIGHT_OUT=${CMAKE_BINARY_DIR}/web"
      ENVIRONMENT_MODIFICATION "PATH=path_list_prepend:${node_folder}")
  elseif(TRIPTYCH_BROWSER_TESTS)
    message(STATUS "chromium not found: no tests of the viewer's page in a browser")
  endif()
  set_tests_properties(web_install web_check PROPERTIES
    ENVIRONMENT_MODIFICATION "PATH=path_list_prepend:${node_folder}")
else()
  message(STATUS "npm not found: no tests of the viewer's page")
endif()
