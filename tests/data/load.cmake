# Records, mixing, packing and the loader: part of tests/data.
foreach(part records record_file stream loader step_rows qwen)
  triptych_test(load_${part}_test SOURCES load_${part}_test.cpp DEPENDS triptych::data)
  target_include_directories(load_${part}_test PRIVATE ${CMAKE_SOURCE_DIR})
endforeach()
