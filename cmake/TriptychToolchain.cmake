# Language level, warnings, compiler cache and linker: everything that is true for every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
# libtorch lives in a Python wheel, outside the loader's paths; an installed tree sets its own.
set(CMAKE_BUILD_RPATH_USE_ORIGIN OFF)

find_program(TRIPTYCH_CCACHE ccache)
if(TRIPTYCH_CCACHE)
  # The sloppiness that precompiled headers need; the base directory lets clones share the cache.
  set(launcher ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${TRIPTYCH_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
endif()

find_program(TRIPTYCH_MOLD mold)
if(TRIPTYCH_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_library(triptych_warnings INTERFACE)
target_compile_options(triptych_warnings INTERFACE
  -Wall -Wextra -Werror -Wno-missing-field-initializers
  # GCC 12 reports accesses inside std::string and std::vector that cannot happen (its bugs 105329, 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized -Wno-array-bounds -Wno-stringop-overflow -Wno-restrict -fpch-preprocess>)

option(TRIPTYCH_SANITIZE "Address and undefined-behaviour sanitizers" OFF)
if(TRIPTYCH_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()
