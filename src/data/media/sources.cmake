list(APPEND TRIPTYCH_DATA_SOURCES
  media/encode.cpp media/image.cpp media/jpeg.cpp media/patchify.cpp media/png.cpp
  media/pre_resize.cpp media/qwen_vision.cpp media/qwen_vision_options.cpp media/resize.cpp media/to_rgb.cpp
  media/video.cpp media/video_sampling.cpp media/webp.cpp)

# Kernels for one instruction set each, chosen at run time.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND TRIPTYCH_DATA_SOURCES
    media/patchify_avx2.cpp media/patchify_avx512.cpp media/resize_avx2.cpp
    media/resize_avx512.cpp)
  set_source_files_properties(media/patchify_avx2.cpp media/resize_avx2.cpp
    PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma")
  set_source_files_properties(media/patchify_avx512.cpp media/resize_avx512.cpp
    PROPERTIES COMPILE_OPTIONS
    "-mavx2;-mfma;-mavx512f;-mavx512bw;-mavx512vl;-Wno-uninitialized")  # GCC 12's own header warns
endif()

# These files promise the reference's last bit: a product and a sum stay two roundings.
set_property(SOURCE media/patchify.cpp media/patchify_avx2.cpp media/patchify_avx512.cpp
  media/pre_resize.cpp media/qwen_vision.cpp media/resize.cpp media/video_sampling.cpp
  APPEND PROPERTY COMPILE_OPTIONS -ffp-contract=off)
