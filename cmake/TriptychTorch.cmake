# libtorch from the wheel in .venv, or from the folder in TRIPTYCH_TORCH.
#
# The wheel's own CMake package is not used: that of a CUDA build wants a whole CUDA toolkit with
# compiler, cuBLAS, cuDNN and profiler, of which we need the headers of the runtime and of NCCL;
# with targets of our own a CPU program also builds against a CUDA wheel.
set(TRIPTYCH_TORCH "" CACHE PATH "Folder of the torch package (holds lib/ and include/)")
if(NOT TRIPTYCH_TORCH)
  file(GLOB found ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  if(found)
    list(GET found 0 TRIPTYCH_TORCH)
  endif()
endif()
if(NOT EXISTS ${TRIPTYCH_TORCH}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "libtorch not found; run scripts/setup.sh, or pass -DTRIPTYCH_TORCH=<folder of the torch package>")
endif()
file(STRINGS ${TRIPTYCH_TORCH}/version.py version REGEX "^(__version__|cuda)")
string(REGEX MATCH "__version__ = '([^']+)'" _ "${version}")
set(TRIPTYCH_TORCH_VERSION ${CMAKE_MATCH_1})
string(REGEX MATCH "cuda[^=]*= '([0-9.]+)'" _ "${version}")
set(TRIPTYCH_TORCH_CUDA ${CMAKE_MATCH_1})
message(STATUS "libtorch ${TRIPTYCH_TORCH_VERSION} in ${TRIPTYCH_TORCH}")
if(TRIPTYCH_TORCH_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "libtorch ${TRIPTYCH_TORCH_VERSION} is too old; 2.11 to 2.13 are known to work")
endif()

# fmt ships inside the wheel; a link of its own keeps torch's other headers out of torch-free targets.
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/fmt_include)
file(CREATE_LINK ${TRIPTYCH_TORCH}/include/fmt ${CMAKE_BINARY_DIR}/fmt_include/fmt SYMBOLIC)
add_library(triptych_fmt INTERFACE)
target_include_directories(triptych_fmt SYSTEM INTERFACE ${CMAKE_BINARY_DIR}/fmt_include)
target_compile_definitions(triptych_fmt INTERFACE FMT_HEADER_ONLY=1)

# What every torch target compiles against; the headers are system headers, so their warnings are not ours.
find_package(Threads REQUIRED)
foreach(name c10 torch_cpu)
  add_library(${name} SHARED IMPORTED)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${TRIPTYCH_TORCH}/lib/lib${name}.so)
endforeach()
add_library(triptych_torch INTERFACE)
target_include_directories(triptych_torch SYSTEM INTERFACE
  ${TRIPTYCH_TORCH}/include ${TRIPTYCH_TORCH}/include/torch/csrc/api/include)
target_compile_definitions(triptych_torch INTERFACE USE_C10D_GLOO USE_DISTRIBUTED USE_RPC USE_TENSORPIPE)
target_link_libraries(triptych_torch INTERFACE torch_cpu c10 Threads::Threads)

# at::parallel_for is a template: without -fopenmp its loop is compiled for one thread, silently.
# The OpenMP runtime must be the one torch itself runs on, so that there is one pool of threads.
target_compile_options(triptych_torch INTERFACE -fopenmp)
file(GLOB openmp_runtime ${TRIPTYCH_TORCH}/lib/libgomp*.so* ${TRIPTYCH_TORCH}/../torch.libs/libgomp*.so*)
if(openmp_runtime)
  list(GET openmp_runtime 0 openmp_runtime)
else()
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  set(openmp_runtime OpenMP::OpenMP_CXX)
endif()
target_link_libraries(triptych_torch INTERFACE ${openmp_runtime})

if(TRIPTYCH_CUDA)
  if(NOT TRIPTYCH_TORCH_CUDA)
    message(FATAL_ERROR "TRIPTYCH_CUDA needs a CUDA build of torch; ${TRIPTYCH_TORCH} holds ${TRIPTYCH_TORCH_VERSION}")
  endif()
  # The headers come with the wheels that torch depends on, beside it, or with an installed toolkit;
  # the wheels spread them: the runtime's compiler part and libcu++ are of their own (nvidia-cuda-crt, nvidia-cuda-cccl).
  cmake_path(GET TRIPTYCH_TORCH PARENT_PATH packages)
  find_program(TRIPTYCH_NVCC nvcc)
  file(REAL_PATH "${TRIPTYCH_NVCC}" nvcc)
  cmake_path(GET nvcc PARENT_PATH toolkit)
  set(hints ${packages}/nvidia/cu13/include $ENV{CUDA_HOME}/include ${toolkit}/../include /usr/local/cuda/include)
  find_path(TRIPTYCH_CUDA_INCLUDE crt/host_config.h HINTS ${hints})
  find_path(TRIPTYCH_CCCL_INCLUDE nv/target HINTS ${hints})
  find_path(TRIPTYCH_NCCL_INCLUDE nccl.h
    HINTS ${packages}/nvidia/nccl/include $ENV{NCCL_HOME}/include ${TRIPTYCH_CUDA_INCLUDE})
  if(NOT TRIPTYCH_CUDA_INCLUDE OR NOT TRIPTYCH_CCCL_INCLUDE OR NOT TRIPTYCH_NCCL_INCLUDE)
    message(FATAL_ERROR "the headers of the CUDA runtime, of libcu++ and of NCCL are needed (crt/host_config.h: "
      "${TRIPTYCH_CUDA_INCLUDE}, nv/target: ${TRIPTYCH_CCCL_INCLUDE}, nccl.h: ${TRIPTYCH_NCCL_INCLUDE}); install nvidia-cuda-crt, "
      "nvidia-cuda-cccl and nvidia-nccl-cu13 beside torch, or pass -DTRIPTYCH_CUDA_INCLUDE=... -DTRIPTYCH_CCCL_INCLUDE=... "
      "-DTRIPTYCH_NCCL_INCLUDE=...")
  endif()
  set(cuda_includes ${TRIPTYCH_CUDA_INCLUDE} ${TRIPTYCH_CCCL_INCLUDE})
  list(REMOVE_DUPLICATES cuda_includes)
  if(EXISTS ${packages}/nvidia/cu13/include)
    list(PREPEND cuda_includes ${packages}/nvidia/cu13/include)
  endif()
  message(STATUS "CUDA ${TRIPTYCH_TORCH_CUDA}: headers in ${cuda_includes};${TRIPTYCH_NCCL_INCLUDE}")
  foreach(name c10_cuda torch_cuda)
    add_library(${name} SHARED IMPORTED)
    set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${TRIPTYCH_TORCH}/lib/lib${name}.so)
  endforeach()
  target_include_directories(triptych_torch SYSTEM INTERFACE ${cuda_includes} ${TRIPTYCH_NCCL_INCLUDE})
  target_compile_definitions(triptych_torch INTERFACE USE_C10D_NCCL TRIPTYCH_CUDA)
  # No symbol of ours leads to the CUDA operators: they register themselves when the library is loaded.
  target_link_libraries(triptych_torch INTERFACE -Wl,--no-as-needed torch_cuda c10_cuda -Wl,--as-needed)
endif()

# One precompiled header of the lean set, shared by every torch target.
file(WRITE ${CMAKE_BINARY_DIR}/pch.cpp "\n")
add_library(triptych_pch OBJECT ${CMAKE_BINARY_DIR}/pch.cpp)
target_link_libraries(triptych_pch PRIVATE triptych_torch triptych_fmt triptych_warnings)
target_include_directories(triptych_pch PRIVATE ${CMAKE_SOURCE_DIR}/src)
target_precompile_headers(triptych_pch PRIVATE
  <ATen/ATen.h> <torch/csrc/autograd/custom_function.h> <torch/csrc/autograd/variable.h>
  <functional> <map> <memory> <optional> <span> <string> <string_view> <unordered_map> <vector>)
