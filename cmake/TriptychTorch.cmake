# libtorch from the wheel in .venv, or from wherever Torch_DIR or TRIPTYCH_TORCH points.
set(TRIPTYCH_TORCH "" CACHE PATH "Folder of the torch package (holds lib/, include/, share/cmake)")
if(NOT TRIPTYCH_TORCH)
  file(GLOB found ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  if(found)
    list(GET found 0 TRIPTYCH_TORCH)
  endif()
endif()
if(NOT EXISTS ${TRIPTYCH_TORCH}/share/cmake/Torch/TorchConfig.cmake)
  message(FATAL_ERROR "libtorch not found; run scripts/setup.sh, or pass -DTRIPTYCH_TORCH=<folder of the torch package>")
endif()
list(APPEND CMAKE_PREFIX_PATH ${TRIPTYCH_TORCH})
find_package(Torch REQUIRED)
message(STATUS "libtorch ${Torch_VERSION} in ${TRIPTYCH_TORCH}")

# fmt ships inside the wheel; a link of its own keeps torch's other headers out of torch-free targets.
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/fmt_include)
file(CREATE_LINK ${TRIPTYCH_TORCH}/include/fmt ${CMAKE_BINARY_DIR}/fmt_include/fmt SYMBOLIC)
add_library(triptych_fmt INTERFACE)
target_include_directories(triptych_fmt SYSTEM INTERFACE ${CMAKE_BINARY_DIR}/fmt_include)
target_compile_definitions(triptych_fmt INTERFACE FMT_HEADER_ONLY=1)

# What every torch target compiles against; the headers are system headers, so their warnings are not ours.
add_library(triptych_torch INTERFACE)
target_link_libraries(triptych_torch INTERFACE ${TORCH_LIBRARIES})

# One precompiled header of the lean set, shared by every torch target.
file(WRITE ${CMAKE_BINARY_DIR}/pch.cpp "\n")
add_library(triptych_pch OBJECT ${CMAKE_BINARY_DIR}/pch.cpp)
target_link_libraries(triptych_pch PRIVATE triptych_torch triptych_fmt triptych_warnings)
target_include_directories(triptych_pch PRIVATE ${CMAKE_SOURCE_DIR}/src)
target_precompile_headers(triptych_pch PRIVATE
  <ATen/ATen.h> <torch/csrc/autograd/custom_function.h> <torch/csrc/autograd/variable.h>
  <functional> <map> <memory> <optional> <span> <string> <string_view> <unordered_map> <vector>)
