# check_headers: every header of src/ compiles alone, twice in one file and without the precompiled
# header, so that none leans on what another file happened to include before it.
file(GLOB_RECURSE headers RELATIVE ${CMAKE_SOURCE_DIR}/src CONFIGURE_DEPENDS
     ${CMAKE_SOURCE_DIR}/src/*.h)
set(sources)
foreach(header ${headers})
  string(REPLACE "/" "." name ${header})
  set(source ${CMAKE_BINARY_DIR}/check_headers/${name}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "#include \"${header}\"\n#include \"${header}\"\n" @ONLY)
  list(APPEND sources ${source})
endforeach()

add_library(check_headers OBJECT EXCLUDE_FROM_ALL ${sources})
find_package(nlohmann_json REQUIRED)
target_link_libraries(check_headers PRIVATE triptych_torch triptych_fmt triptych_warnings
                      nlohmann_json::nlohmann_json)
target_include_directories(check_headers PRIVATE ${CMAKE_SOURCE_DIR}/src)
target_compile_options(check_headers PRIVATE -O0 -g0 -Wno-unused-function -Wno-psabi)
target_compile_definitions(check_headers PRIVATE TRIPTYCH_VERSION="${PROJECT_VERSION}")

add_test(NAME check_headers
  COMMAND ${CMAKE_COMMAND} --build ${CMAKE_BINARY_DIR} --target check_headers)
set_tests_properties(check_headers PROPERTIES LABELS headers TIMEOUT 1800)
