# Pictures and video: part of tests/data.
add_executable(media_probe ${CMAKE_SOURCE_DIR}/tests/parity/media_probe.cpp)
target_link_libraries(media_probe PRIVATE triptych::data)
_triptych_common(media_probe)
set_target_properties(media_probe PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

find_program(TRIPTYCH_PYTHON python3 PATHS ${CMAKE_SOURCE_DIR}/.venv/bin NO_DEFAULT_PATH)
if(TRIPTYCH_PYTHON)
  add_test(NAME parity_images COMMAND ${TRIPTYCH_PYTHON}
           ${CMAKE_SOURCE_DIR}/tests/parity/check_images.py $<TARGET_FILE:media_probe>)
  set_tests_properties(parity_images PROPERTIES LABELS parity TIMEOUT 600 SKIP_RETURN_CODE 77)
endif()

foreach(part image resize qwen_vision video)
  triptych_test(media_${part}_test SOURCES media_${part}_test.cpp DEPENDS triptych::data)
  target_include_directories(media_${part}_test PRIVATE ${CMAKE_SOURCE_DIR})
endforeach()
