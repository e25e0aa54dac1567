# triptych_library(NAME SOURCES ... DEPENDS ... [TORCH]): one library per folder of src/.
#   TORCH    the folder uses libtorch: links it and shares the precompiled header
#   DEPENDS  targets that users of this library need as well
# triptych_test(NAME SOURCES ... DEPENDS ... [TORCH] [LABELS fast|slow|parity|distributed]): one test program.
function(_triptych_common target)
  cmake_parse_arguments(A "TORCH" "" "" ${ARGN})
  target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(${target} PUBLIC triptych_fmt PRIVATE triptych_warnings)
  if(A_TORCH)
    target_link_libraries(${target} PUBLIC triptych_torch)
    target_precompile_headers(${target} REUSE_FROM triptych_pch)
    # The header was precompiled with -fPIC; a program would otherwise ask for -fPIE and not match.
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
endfunction()

function(triptych_library name)
  cmake_parse_arguments(A "TORCH" "" "SOURCES;DEPENDS;PRIVATE" ${ARGN})
  add_library(triptych_${name} STATIC ${A_SOURCES})
  add_library(triptych::${name} ALIAS triptych_${name})
  target_link_libraries(triptych_${name} PUBLIC ${A_DEPENDS} PRIVATE ${A_PRIVATE})
  if(A_TORCH)
    _triptych_common(triptych_${name} TORCH)
  else()
    _triptych_common(triptych_${name})
  endif()
endfunction()

function(triptych_test name)
  cmake_parse_arguments(A "TORCH" "" "SOURCES;DEPENDS;LABELS;ARGS" ${ARGN})
  if(NOT A_LABELS)
    set(A_LABELS fast)
  endif()
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE ${A_DEPENDS} triptych_test_paths GTest::gmock GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)  # "support/..."
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  if(A_TORCH)
    _triptych_common(${name} TORCH)
  else()
    _triptych_common(${name})
  endif()
  # What a test's macro expands to counts as our own text where ccache has preprocessed it.
  target_compile_options(${name} PRIVATE -Wno-dangling-else)
  add_test(NAME ${name} COMMAND ${name} ${A_ARGS})
  set_tests_properties(${name} PROPERTIES LABELS "${A_LABELS}" TIMEOUT 300)
endfunction()
