# Tokenizer and templates: part of tests/data.
add_executable(tokenizer_probe ${CMAKE_SOURCE_DIR}/tests/parity/tokenizer_probe.cpp)
target_link_libraries(tokenizer_probe PRIVATE triptych::data)
_triptych_common(tokenizer_probe)
set_target_properties(tokenizer_probe PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

find_program(TRIPTYCH_PYTHON python3 PATHS ${CMAKE_SOURCE_DIR}/.venv/bin NO_DEFAULT_PATH)
if(TRIPTYCH_PYTHON)
  add_test(NAME parity_tokenizer COMMAND ${TRIPTYCH_PYTHON}
           ${CMAKE_SOURCE_DIR}/tests/parity/check_tokenizer.py $<TARGET_FILE:tokenizer_probe>)
  set_tests_properties(parity_tokenizer PROPERTIES LABELS parity TIMEOUT 600 SKIP_RETURN_CODE 77)
endif()

foreach(part pattern tokenizer template)
  triptych_test(text_${part}_test SOURCES text_${part}_test.cpp DEPENDS triptych::data)
  target_include_directories(text_${part}_test PRIVATE ${CMAKE_SOURCE_DIR})
endforeach()
